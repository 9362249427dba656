// The activations that a convolution or fully connected layer may end with beside PReLU and bounds,
// over a vector type of kernels/simd/ or F32Scalar. Internal linkage: every file that includes this
// gets its own copy, compiled for its own instruction set.
//
//   gate = clamp(fma(y, s_y / 6, 0.5), 0, 1)      hard_sigmoid and hard_swish
//   gate = 1 / (1 + 2^(-y s_y log2 e))            sigmoid and swish
//   hard_swish, swish: y * gate; hard_sigmoid, sigmoid: gate * (1 / s_y)
//
// y counts output steps, of 1 where the output is f32, so that no other rescaling is needed. The
// gates are within 1e-7 of the exact ones; hard_sigmoid is that of alpha = 1/6 and beta = 1/2.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/numerics.h"

namespace pyedge {

// As ops.def numbers them.
enum class Activation : int32_t { kNone, kHardSigmoid, kSigmoid, kHardSwish, kSwish };
constexpr int32_t kActivations = 5;

struct ConvActivation {
  Activation kind;
  float factor;  // of y in the argument of the gate
  float one;     // in output steps

  bool soft() const { return kind == Activation::kSigmoid || kind == Activation::kSwish; }
  bool times_y() const { return kind == Activation::kHardSwish || kind == Activation::kSwish; }
};

namespace {

// A vector of one lane: what the references are written in.
struct F32Scalar {
  using Vector = float;
  static constexpr int32_t kLanes = 1;

  static float load(const float* p) { return *p; }
  static void store(float* p, float a) { *p = a; }
  static float fill(float x) { return x; }
  static float add(float a, float b) { return a + b; }
  static float sub(float a, float b) { return a - b; }
  static float mul(float a, float b) { return a * b; }
  static float div(float a, float b) { return a / b; }
  static float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
  static float clamp(float a, float lo, float hi) { return pyedge::clamp(a, lo, hi); }
  static float times_power(float a, float n) {
    uint32_t bits, exponent;
    std::memcpy(&bits, &a, sizeof bits), std::memcpy(&exponent, &n, sizeof exponent);
    bits += exponent << 23;
    std::memcpy(&a, &bits, sizeof a);
    return a;
  }
};

template <class V>
inline typename V::Vector hard_gate(typename V::Vector y, float factor) {
  return V::clamp(V::fma(y, V::fill(factor), V::fill(0.5f)), V::fill(0.0f), V::fill(1.0f));
}

template <class V>
inline typename V::Vector hard_swish(typename V::Vector y, float factor) {
  return V::mul(hard_gate<V>(y, factor), y);
}

// 2^z = 2^n 2^f with n an integer and |f| <= 0.5; the polynomial is within 1e-7 of 2^f, relative.
// Between the bounds of z all of these are normal numbers.
template <class V>
inline typename V::Vector soft_gate(typename V::Vector y, float factor) {
  using Vector = typename V::Vector;
  const Vector round = V::fill(12582912.0f);  // 1.5 * 2^23, where floats count in steps of one
  const Vector z = V::clamp(V::mul(y, V::fill(factor)), V::fill(-126.0f), V::fill(126.0f));
  const Vector n = V::add(z, round), f = V::sub(z, V::sub(n, round));
  Vector power = V::fill(0x1.5bba14p-10f);
  constexpr float kCoefficients[] = {0x1.3cea88p-7f, 0x1.c6b752p-5f, 0x1.ebf9bcp-3f, 0x1.62e42ap-1f,
                                     1.0f};
  for (const float coefficient : kCoefficients) {
    power = V::fma(power, f, V::fill(coefficient));
  }
  const Vector one = V::fill(1.0f);
  return V::div(one, V::add(one, V::times_power(power, n)));
}

// In place.
template <class V, size_t kVectors>
inline void activate(const ConvActivation& a, typename V::Vector (&y)[kVectors]) {
  typename V::Vector gate[kVectors];
  if (a.soft()) {
    for (size_t v = 0; v < kVectors; ++v) gate[v] = soft_gate<V>(y[v], a.factor);
  } else {
    for (size_t v = 0; v < kVectors; ++v) gate[v] = hard_gate<V>(y[v], a.factor);
  }
  if (a.times_y()) {
    for (size_t v = 0; v < kVectors; ++v) y[v] = V::mul(gate[v], y[v]);
  } else {
    for (size_t v = 0; v < kVectors; ++v) y[v] = V::mul(gate[v], V::fill(a.one));
  }
}

// The same of `count` values in memory, a multiple of the lanes. A function of its own, as it would
// take the registers of the loops that it ends.
template <class V>
[[gnu::noinline]] void activate(const ConvActivation a, float* y, size_t count) {
  for (size_t i = 0; i < count; i += static_cast<size_t>(V::kLanes)) {
    typename V::Vector vector[] = {V::load(y + i)};
    activate<V>(a, vector);
    V::store(y + i, vector[0]);
  }
}

}  // namespace
}  // namespace pyedge
