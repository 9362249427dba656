// Four floats in a NEON register. Internal linkage: included only by files compiled for NEON.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace pyedge {
namespace {

struct F32Neon {
  using Vector = float32x4_t;
  static constexpr int32_t kLanes = 4;
  static constexpr bool kMultipliesByLane = true;

  static Vector load(const float* p) { return vld1q_f32(p); }
  // A load that GCC does not repeat for each use.
  static Vector load_once(const float* p) {
    Vector a = load(p);
    asm("" : "+w"(a));
    return a;
  }
  static Vector broadcast(const float* p) { return vld1q_dup_f32(p); }
  static Vector fill(float x) { return vdupq_n_f32(x); }
  static void store(float* p, Vector a) { vst1q_f32(p, a); }
  // The first `lanes` lanes, at most three.
  static void store_first(float* p, Vector a, int32_t lanes) {
    if (lanes & 2) {
      vst1_f32(p, vget_low_f32(a));
      p += 2;
      a = vextq_f32(a, a, 2);
    }
    if (lanes & 1) vst1q_lane_f32(p, a, 0);
  }
  // Which lane of a vector each lane takes: int32 in memory, bytes where tbl takes them.
  using Index = uint8x16_t;
  static Index load_index(const void* p) {
    const uint32x4_t lane = vld1q_u32(static_cast<const uint32_t*>(p));
    return vreinterpretq_u8_u32(vmlaq_n_u32(vdupq_n_u32(0x03020100), lane, 0x04040404));
  }
  static Vector permute(Vector a, Index index) {
    return vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(a), index));
  }
  static Vector add(Vector a, Vector b) { return vaddq_f32(a, b); }
  static Vector sub(Vector a, Vector b) { return vsubq_f32(a, b); }
  static Vector mul(Vector a, Vector b) { return vmulq_f32(a, b); }
  static Vector div(Vector a, Vector b) { return vdivq_f32(a, b); }
  // a * 2^n, n standing in the low bits of a float's; both a and the result are normal.
  static Vector times_power(Vector a, Vector n) {
    const uint32x4_t exponent = vshlq_n_u32(vreinterpretq_u32_f32(n), 23);
    return vreinterpretq_f32_u32(vaddq_u32(vreinterpretq_u32_f32(a), exponent));
  }
  static Vector fma(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }
  // fma with one lane of a, a constant once loops are unrolled.
  static Vector fma_lane(Vector a, int lane, Vector b, Vector c) {
    switch (lane) {
      case 0:
        return vfmaq_laneq_f32(c, b, a, 0);
      case 1:
        return vfmaq_laneq_f32(c, b, a, 1);
      case 2:
        return vfmaq_laneq_f32(c, b, a, 2);
      default:
        return vfmaq_laneq_f32(c, b, a, 3);
    }
  }
  // a < 0 ? a * slope : a
  static Vector prelu(Vector a, Vector slope) {
    return vbslq_f32(vcltzq_f32(a), vmulq_f32(a, slope), a);
  }
  // pyedge::clamp: NaN becomes lo.
  static Vector clamp(Vector a, Vector lo, Vector hi) {
    return vminnmq_f32(vmaxnmq_f32(a, lo), hi);
  }
};

}  // namespace
}  // namespace pyedge
