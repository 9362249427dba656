// What follows the accumulators, over a vector type. Internal linkage.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/conv/activation.h"
#include "kernels/kernel.h"

namespace pyedge {
namespace {

// y = clamp(prelu(acc + residual)), or another activation in the place of prelu, for a vector of
// each pixel, of which the first `lanes` lanes are channels; the pixels of y and the residual lie
// `stride` floats apart. Residual and slope may be null.
template <class V, int kPixels>
inline void finish(typename V::Vector (&acc)[kPixels], const float* residual, const float* slope,
                   const ConvActivation& activation, float lowest, float highest, float* y,
                   size_t stride, size_t lanes) {
  using Vector = typename V::Vector;
  if (residual) {
#pragma GCC unroll 32
    for (int i = 0; i < kPixels; ++i) {
      acc[i] = V::add(acc[i], V::load(residual + static_cast<size_t>(i) * stride));
    }
  }
  if (slope) {
    const Vector factor = V::load(slope);
#pragma GCC unroll 32
    for (int i = 0; i < kPixels; ++i) acc[i] = V::prelu(acc[i], factor);
  }
  if (activation.kind != Activation::kNone) {
    alignas(kAlignment) float values[kPixels * V::kLanes];
#pragma GCC unroll 32
    for (int i = 0; i < kPixels; ++i) V::store(values + i * V::kLanes, acc[i]);
    activate<V>(activation, values, sizeof values / sizeof values[0]);
#pragma GCC unroll 32
    for (int i = 0; i < kPixels; ++i) acc[i] = V::load(values + i * V::kLanes);
  }
  const Vector lo = V::fill(lowest), hi = V::fill(highest);
#pragma GCC unroll 32
  for (int i = 0; i < kPixels; ++i) acc[i] = V::clamp(acc[i], lo, hi);
  if (lanes >= static_cast<size_t>(V::kLanes)) {
#pragma GCC unroll 32
    for (int i = 0; i < kPixels; ++i) V::store(y + static_cast<size_t>(i) * stride, acc[i]);
  } else {
    for (int i = 0; i < kPixels; ++i) {
      V::store_first(y + static_cast<size_t>(i) * stride, acc[i], static_cast<int32_t>(lanes));
    }
  }
}

}  // namespace
}  // namespace pyedge
