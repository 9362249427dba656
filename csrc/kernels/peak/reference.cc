// Plain loops: what the compiler makes of them for the oldest CPU of the architecture.
#include <cstdint>

#include "kernels/peak/peak.h"

namespace pyedge {
namespace {

constexpr size_t kLanes = 64;  // enough independent sums to hide the latency of an addition

volatile float f32_source = 0.5f;
volatile float f32_sink = 0.0f;
volatile int32_t i32_source = 3;
volatile int32_t i32_sink = 0;

double f32(size_t rounds) {
  float sum_f32x64[kLanes] = {};
  const float a = f32_source, b = f32_source;
  for (size_t round = 0; round < rounds; ++round) {
    for (size_t lane = 0; lane < kLanes; ++lane) sum_f32x64[lane] = sum_f32x64[lane] * a + b;
  }
  for (const float sum : sum_f32x64) f32_sink = f32_sink + sum;
  return 2.0 * static_cast<double>(rounds * kLanes);
}

// Unsigned, so that wrapping around is defined. Each sum is multiplied again, or the compiler
// would replace the loop by one multiplication.
double i8(size_t rounds) {
  uint32_t sum_u32x64[kLanes] = {};
  const uint32_t a = static_cast<uint32_t>(i32_source), b = static_cast<uint32_t>(i32_source);
  for (size_t round = 0; round < rounds; ++round) {
    for (size_t lane = 0; lane < kLanes; ++lane) sum_u32x64[lane] = sum_u32x64[lane] * a + b;
  }
  uint32_t total = 0;
  for (const uint32_t sum : sum_u32x64) total += sum;
  i32_sink = static_cast<int32_t>(total & 0x7fffffffu);
  return 2.0 * static_cast<double>(rounds * kLanes);
}

}  // namespace

const PeakProbe peak_reference = {f32, i8};

}  // namespace pyedge
