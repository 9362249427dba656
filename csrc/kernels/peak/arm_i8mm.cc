// i8: smmla, 32 multiply-adds.
#include <arm_neon.h>

#include <cstdint>

#include "kernels/peak/peak.h"

namespace pyedge {
namespace {

constexpr size_t kSums = 16;  // four pipes times a latency of four at most

volatile int8_t i8_source = 3;
volatile int32_t i32_sink = 0;

}  // namespace

double peak_i8_i8mm(size_t rounds) {
  int32x4_t sum_i32x4[kSums];
  for (size_t i = 0; i < kSums; ++i) sum_i32x4[i] = vdupq_n_s32(i8_source);
  const int8x16_t a_i8x16 = vdupq_n_s8(i8_source), b_i8x16 = vdupq_n_s8(i8_source);
  for (size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (size_t i = 0; i < kSums; ++i) sum_i32x4[i] = vmmlaq_s32(sum_i32x4[i], a_i8x16, b_i8x16);
  }
  for (size_t i = 0; i < kSums; ++i) i32_sink = i32_sink ^ vgetq_lane_s32(sum_i32x4[i], 0);
  return 2.0 * 32.0 * static_cast<double>(rounds * kSums);
}

}  // namespace pyedge
