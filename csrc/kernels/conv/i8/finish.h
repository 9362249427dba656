// From accumulators to outputs, over a vector type. Internal linkage: every file that includes
// this gets its own copy, compiled for its own instruction set.
#pragma once

#include "kernels/conv/i8/layout.h"

namespace pyedge {
namespace {

// `sums`: [pixels][block] accumulators in the order of the lanes; `at`: where the first pixel's
// first channel lies in y.
using I8FinishFunction = void (*)(const I8Finish& f, const I8Channels& channels,
                                  const int32_t* sums, size_t pixels, size_t at,
                                  size_t channel_count);

// What is the same for all pixels is loaded first: stores of bytes could alias it.
template <class V>
struct Channels {
  typename V::Float scale[kI8BlockVectors], bias[kI8BlockVectors], slope[kI8BlockVectors];

  explicit Channels(const I8Channels& c) {
    for (size_t v = 0; v < kI8BlockVectors; ++v) {
      scale[v] = V::load(c.scale + v * V::kLanes);
      bias[v] = V::load(c.bias + v * V::kLanes);
      slope[v] = V::load(c.slope + v * V::kLanes);
    }
  }
};

template <class V, bool kResidual, bool kSlope, bool kClamps>
void finish_i8(const I8Finish& f, const I8Channels& channels, const int32_t* sums, size_t pixels,
               size_t at, size_t channel_count) {
  constexpr size_t kBlock = kI8BlockVectors * V::kLanes;
  const Channels<V> c(channels);
  const typename V::Float lo = V::fill(f.lo), hi = V::fill(f.hi);
  const typename V::Float residual_scale = V::fill(f.residual_scale);
  const int32_t zero_point = f.zero_point, residual_zero_point = f.residual_zero_point;
  const size_t y_stride = f.y_stride;
  int8_t* y = static_cast<int8_t*>(f.y) + at;
  const int8_t* residual = kResidual ? static_cast<const int8_t*>(f.residual) + at : nullptr;
  for (; pixels > 0; --pixels, sums += kBlock, y += y_stride) {
    typename V::Int q[kI8BlockVectors];
    if (kResidual) {
      V::load_block(residual, residual_zero_point, q);
      residual += y_stride;
    }
    for (size_t v = 0; v < kI8BlockVectors; ++v) {
      typename V::Float x =
          V::fma(V::to_float(V::load(sums + v * V::kLanes)), c.scale[v], c.bias[v]);
      if (kResidual) x = V::fma(V::to_float(q[v]), residual_scale, x);
      if (kSlope) x = V::prelu(x, c.slope[v]);
      if (kClamps) x = V::clamp(x, lo, hi);
      q[v] = V::round(x);
    }
    V::store_block(y, q, zero_point, channel_count);
  }
}

template <class V>
void finish_f32(const I8Finish& f, const I8Channels& channels, const int32_t* sums, size_t pixels,
                size_t at, size_t channel_count) {
  constexpr size_t kBlock = kI8BlockVectors * V::kLanes;
  Channels<V> c(channels);
  V::channel_order(c.slope);
  const typename V::Float lo = V::fill(f.lo), hi = V::fill(f.hi);
  for (; pixels > 0; --pixels, sums += kBlock, at += f.y_stride) {
    typename V::Float y[kI8BlockVectors];
    for (size_t v = 0; v < kI8BlockVectors; ++v) {
      y[v] = V::fma(V::to_float(V::load(sums + v * V::kLanes)), c.scale[v], c.bias[v]);
    }
    V::channel_order(y);
    for (size_t v = 0; v < kI8BlockVectors && v * V::kLanes < channel_count; ++v) {
      const size_t lane = v * V::kLanes, count = channel_count - lane;
      if (f.residual != nullptr) {
        const float* residual = static_cast<const float*>(f.residual) + at + lane;
        y[v] = V::add(y[v], V::load_first(residual, count));
      }
      if (f.has_slope) y[v] = V::prelu(y[v], c.slope[v]);
      V::store_first(static_cast<float*>(f.y) + at + lane, V::clamp(y[v], lo, hi), count);
    }
  }
}

template <class V, bool kResidual, bool kSlope>
I8FinishFunction finish_i8_function(const I8Finish& f) {
  return f.clamps ? finish_i8<V, kResidual, kSlope, true> : finish_i8<V, kResidual, kSlope, false>;
}

template <class V>
I8FinishFunction finish_function(const I8Finish& f) {
  if (f.f32) return finish_f32<V>;
  if (f.residual != nullptr) {
    return f.has_slope ? finish_i8_function<V, true, true>(f)
                       : finish_i8_function<V, true, false>(f);
  }
  return f.has_slope ? finish_i8_function<V, false, true>(f)
                     : finish_i8_function<V, false, false>(f);
}

}  // namespace
}  // namespace pyedge
