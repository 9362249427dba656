// f32: fmla, 4 multiply-adds. i8: smull, smlal2 and sadalp, 16 multiply-adds.
#include <arm_neon.h>

#include <cstdint>

#include "kernels/peak/peak.h"

namespace pyedge {
namespace {

constexpr size_t kSums = 16;  // four pipes times a latency of four

volatile float f32_source = 0.5f;
volatile float f32_sink = 0.0f;
volatile int8_t i8_source = 3;
volatile int32_t i32_sink = 0;

double f32(size_t rounds) {
  float32x4_t sum_f32x4[kSums];
  for (size_t i = 0; i < kSums; ++i) sum_f32x4[i] = vdupq_n_f32(f32_source);
  const float32x4_t a_f32x4 = vdupq_n_f32(f32_source), b_f32x4 = vdupq_n_f32(f32_source);
  for (size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (size_t i = 0; i < kSums; ++i) sum_f32x4[i] = vfmaq_f32(sum_f32x4[i], a_f32x4, b_f32x4);
  }
#pragma GCC unroll 16
  for (size_t i = 0; i < kSums; ++i) f32_sink = f32_sink + vgetq_lane_f32(sum_f32x4[i], 0);
  return 2.0 * 4.0 * static_cast<double>(rounds * kSums);
}

double i8(size_t rounds) {
  int32x4_t sum_i32x4[kSums];
  const int8x16_t a_i8x16 = vdupq_n_s8(i8_source);
  for (size_t i = 0; i < kSums; ++i) sum_i32x4[i] = vreinterpretq_s32_s8(a_i8x16);
  for (size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (size_t i = 0; i < kSums; ++i) {
      // The sum is an operand too: a product of constants would leave the loop.
      const int8x16_t b_i8x16 = vreinterpretq_s8_s32(sum_i32x4[i]);
      int16x8_t pairs_i16x8 = vmull_s8(vget_low_s8(a_i8x16), vget_low_s8(b_i8x16));
      pairs_i16x8 = vmlal_high_s8(pairs_i16x8, a_i8x16, b_i8x16);
      sum_i32x4[i] = vpadalq_s16(sum_i32x4[i], pairs_i16x8);
    }
  }
  for (size_t i = 0; i < kSums; ++i) i32_sink = i32_sink ^ vgetq_lane_s32(sum_i32x4[i], 0);
  return 2.0 * 16.0 * static_cast<double>(rounds * kSums);
}

}  // namespace

const PeakProbe peak_neon = {f32, i8};

}  // namespace pyedge
