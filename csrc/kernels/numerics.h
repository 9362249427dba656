// The scalar arithmetic that every kernel of an operation reproduces bit for bit.
//
// All of it is plain IEEE-754: the build forbids contraction, so a multiply and an add fuse only
// where std::fma is written. The functions are static: the linker must not merge what was compiled
// for a newer instruction set into other files.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace pyedge {

// NaN becomes lo. Written for maxps and minps with x first, and for fmaxnm and fminnm, which
// compilers do not find in comparisons; they differ in the sign of zero only.
static inline float clamp(float x, float lo, float hi) {
#if defined(__aarch64__)
  return __builtin_fminf(__builtin_fmaxf(x, lo), hi);
#else
  x = x > lo ? x : lo;
  return x < hi ? x : hi;
#endif
}

// Bounds of a value in output steps, before the zero point is added: the activation's bounds
// within the i8 range.
static inline float quantized_bound(float bound, float scale, int32_t zero_point,
                                    double otherwise) {
  const double lowest = -128.0 - zero_point, highest = 127.0 - zero_point;
  const double steps = static_cast<double>(bound) / scale;
  if (!(steps == steps)) return static_cast<float>(otherwise - zero_point);
  return static_cast<float>(steps < lowest ? lowest : steps > highest ? highest : steps);
}
static inline float quantized_lower(float act_min, float scale, int32_t zero_point) {
  return quantized_bound(act_min, scale, zero_point, -128.0);
}
static inline float quantized_upper(float act_max, float scale, int32_t zero_point) {
  return quantized_bound(act_max, scale, zero_point, 127.0);
}

// y in output steps; lo and hi from the two functions above. Rounds half to even.
static inline int8_t requantize(float y, float lo, float hi, int32_t zero_point) {
  return static_cast<int8_t>(static_cast<int32_t>(std::nearbyintf(clamp(y, lo, hi))) + zero_point);
}

// IEEE half precision, finite. The result is exact and never denormal.
static inline float half_to_float(uint16_t half) {
  const uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
  float magnitude = static_cast<float>(fraction) * 0x1p-24f;
  if (exponent > 0) {
    const uint32_t bits = (exponent + 112) << 23 | fraction << 13;
    std::memcpy(&magnitude, &bits, sizeof magnitude);
  }
  return half >> 15 ? -magnitude : magnitude;
}

static inline float flush_denormal(float x) { return std::fabs(x) < 0x1p-126f ? 0.0f : x; }

static inline float reciprocal(float scale) {
  return static_cast<float>(1.0 / static_cast<double>(scale));
}

static inline int8_t quantize(float x, float reciprocal_scale, int32_t zero_point) {
  return requantize(x * reciprocal_scale, static_cast<float>(-128 - zero_point),
                    static_cast<float>(127 - zero_point), zero_point);
}

static inline float dequantize(int8_t q, float scale, int32_t zero_point) {
  return static_cast<float>(q - zero_point) * scale;
}

// e^x from multiplications and additions only: the same bits with every libm, and a loop that
// compilers vectorize. Within 1e-13 relative; the argument is clamped to +-700.
static inline double deterministic_exp(double x) {
  x = x > -700.0 ? (x < 700.0 ? x : 700.0) : -700.0;
  constexpr double kLog2E = 1.4426950408889634, kLn2Hi = 0.693147180369123816490,
                   kLn2Lo = 1.90821492927058770002e-10;
  const double n = std::nearbyint(x * kLog2E);
  const double r = (x - n * kLn2Hi) - n * kLn2Lo;  // |r| <= ln2 / 2
  double sum = 1.0 / 39916800.0;                   // the series up to r^11 / 11!
  sum = sum * r + 1.0 / 3628800.0;
  sum = sum * r + 1.0 / 362880.0;
  sum = sum * r + 1.0 / 40320.0;
  sum = sum * r + 1.0 / 5040.0;
  sum = sum * r + 1.0 / 720.0;
  sum = sum * r + 1.0 / 120.0;
  sum = sum * r + 1.0 / 24.0;
  sum = sum * r + 1.0 / 6.0;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  const int64_t bits = (static_cast<int64_t>(static_cast<int32_t>(n)) + 1023) * (int64_t{1} << 52);
  double power;  // 2^n, a normal number because |n| <= 1010
  std::memcpy(&power, &bits, sizeof power);
  return sum * power;
}

static inline float sigmoid(float x) {
  return static_cast<float>(1.0 / (1.0 + deterministic_exp(-static_cast<double>(x))));
}
static inline float tanh(float x) {
  return static_cast<float>(1.0 - 2.0 / (deterministic_exp(2.0 * static_cast<double>(x)) + 1.0));
}
static inline float hard_sigmoid(float x, float alpha, float beta) {
  return clamp(x * alpha + beta, 0.0f, 1.0f);
}
static inline float hard_swish(float x) { return x * clamp(x + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f); }

}  // namespace pyedge
