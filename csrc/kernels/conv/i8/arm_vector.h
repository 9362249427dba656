// What the INT8 convolutions take from 128-bit NEON vectors, whatever the dot product. Internal
// linkage: every file that includes this gets its own copy, compiled for its own instruction set.
#pragma once

#include <arm_neon.h>

#include "kernels/conv/i8/dense_panel.h"
#include "kernels/conv/i8/depthwise_row.h"
#include "kernels/simd/f32_neon.h"

namespace pyedge {
namespace {

struct Neon {
  using Int = int32x4_t;
  using Float = float32x4_t;
  using F32 = F32Neon;
  static constexpr size_t kLanes = 4;
  // Rounded values are taken from the low 16 bits, and a zero point is added to them.
  static constexpr float kExact = 32000.0f;

  static Int load(const int32_t* p) { return vld1q_s32(p); }
  static void store(int32_t* p, Int x) { vst1q_s32(p, x); }

  static Float load(const float* p) { return vld1q_f32(p); }
  static Float fill(float x) { return vdupq_n_f32(x); }
  static Float add(Float a, Float b) { return vaddq_f32(a, b); }
  static Float fma(Float a, Float b, Float c) { return vfmaq_f32(c, a, b); }
  static Float to_float(Int x) { return vcvtq_f32_s32(x); }
  // In the low half of the lanes: past 2^23 the bits of a float count in steps of one.
  static Int round(Float x) {
    return vreinterpretq_s32_f32(vaddq_f32(x, vdupq_n_f32(12582912.0f)));
  }
  static Float clamp(Float x, Float lo, Float hi) { return vminnmq_f32(vmaxnmq_f32(x, lo), hi); }
  static Float prelu(Float x, Float slope) {
    return vbslq_f32(vcltzq_f32(x), vmulq_f32(x, slope), x);
  }
  static Float prelu_max(Float x, Float slope) { return vmaxq_f32(x, vmulq_f32(x, slope)); }

  // Of 16 channels, reading past the last; q - zero_point.
  static void load_block(const int8_t* p, int32_t zero_point, Int* q) {
    const int8x16_t bytes = vld1q_s8(p), zero = vdupq_n_s8(static_cast<int8_t>(zero_point));
    const int16x8_t low = vsubl_s8(vget_low_s8(bytes), vget_low_s8(zero));
    const int16x8_t high = vsubl_high_s8(bytes, zero);
    q[0] = vmovl_s16(vget_low_s16(low)), q[1] = vmovl_high_s16(low);
    q[2] = vmovl_s16(vget_low_s16(high)), q[3] = vmovl_high_s16(high);
  }
  static int16x8_t low_halves(Int a, Int b) {
    return vuzp1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
  }
  static int8x16_t narrow(const Int* q, int16x8_t zero_point) {
    const int16x8_t low = vaddq_s16(low_halves(q[0], q[1]), zero_point);
    const int16x8_t high = vaddq_s16(low_halves(q[2], q[3]), zero_point);
    return vqmovn_high_s16(vqmovn_s16(low), high);
  }
  static void store_block(int8_t* p, const Int* q, int32_t zero_point, size_t count) {
    const int8x16_t bytes = narrow(q, vdupq_n_s16(static_cast<int16_t>(zero_point)));
    if (count == 16) {
      vst1q_s8(p, bytes);
    } else {
      int8_t block[16];
      vst1q_s8(block, bytes);
      __builtin_memcpy(p, block, count);
    }
  }

  static void channel_order(Float*) {}
  static Float load_first(const float* p, size_t count) {
    if (count >= kLanes) return load(p);
    float block[kLanes] = {};
    __builtin_memcpy(block, p, count * sizeof(float));
    return load(block);
  }
  static void store_first(float* p, Float x, size_t count) {
    float block[kLanes];
    vst1q_f32(block, x);
    __builtin_memcpy(p, block, (count < kLanes ? count : kLanes) * sizeof(float));
  }

  static uint8_t* pack(const I8Run* runs, size_t count, int32_t, uint8_t* packed) {
    for (size_t i = 0; i < count; ++i) {
      for (size_t at = 0; at < runs[i].length; at += 32) {
        vst1q_u8_x2(packed + at, vld1q_u8_x2(reinterpret_cast<const uint8_t*>(runs[i].data) + at));
      }
      packed += runs[i].length;
    }
    return packed;
  }
};

constexpr size_t kArmBlock = 16;  // channels
constexpr size_t kArmTilePixels = 4;

}  // namespace
}  // namespace pyedge
