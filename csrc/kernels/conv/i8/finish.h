// From accumulators to outputs, over a vector type. Internal linkage: every file that includes
// this gets its own copy, compiled for its own instruction set.
#pragma once

#include "kernels/conv/activation.h"
#include "kernels/conv/i8/layout.h"

namespace pyedge {
namespace {

// body(0) to body(kCount - 1) without a loop: as soon as compilers meet one, GCC 12 keeps what it
// sums up in memory.
template <size_t kCount, class Body>
[[gnu::always_inline]] inline void unrolled(const Body& body) {
  if constexpr (kCount > 0) {
    unrolled<kCount - 1>(body);
    body(kCount - 1);
  }
}

// Of a block of channels. Copies, as the compiler must take a store of bytes to change anything
// it reaches through a pointer.
template <class V>
struct FinishBlock {
  typename V::Float scale[kI8BlockVectors], bias[kI8BlockVectors], slope[kI8BlockVectors];
  typename V::Float lo, hi;
  size_t channel_count;

  FinishBlock(const I8Finish& f, const I8Channels& c, size_t count)
      : lo(V::fill(f.lo)), hi(V::fill(f.hi)), channel_count(count) {
    for (size_t v = 0; v < kI8BlockVectors; ++v) {
      scale[v] = V::load(c.scale + v * V::kLanes);
      bias[v] = V::load(c.bias + v * V::kLanes);
      slope[v] = V::load(c.slope + v * V::kLanes);
    }
  }

  typename V::Float scaled(const typename V::Int* sums, size_t v) const {
    return V::fma(V::to_float(sums[v]), scale[v], bias[v]);
  }
};

// Of y and y * slope, or in their place hard swish, which is frequent and short, or any activation.
enum class I8Slope { none, max, select, hard_swish, activation };

template <class V, bool kResidual, I8Slope kSlope, bool kClamps>
struct FinishI8 : FinishBlock<V> {
  int8_t* y;
  const int8_t* residual;
  typename V::Float residual_scale;
  int32_t zero_point, residual_zero_point;
  ConvActivation activation;

  FinishI8(const I8Finish& f, const I8Channels& c, size_t count)
      : FinishBlock<V>(f, c, count),
        y(static_cast<int8_t*>(f.y)),
        residual(static_cast<const int8_t*>(f.residual)),
        residual_scale(V::fill(f.residual_scale)),
        zero_point(f.zero_point),
        residual_zero_point(f.residual_zero_point),
        activation(f.activation) {}

  // `sums`: the vectors of a block; `at`: where the pixel's first channel lies in y.
  [[gnu::always_inline]] void operator()(const typename V::Int* sums, size_t at) const {
    typename V::Int q[kI8BlockVectors];
    if (kResidual) V::load_block(residual + at, residual_zero_point, q);
    if constexpr (kSlope == I8Slope::activation) {
      typename V::Float x[kI8BlockVectors];
      for (size_t v = 0; v < kI8BlockVectors; ++v) x[v] = this->scaled(sums, v);
      activate<typename V::F32>(activation, x);
      for (size_t v = 0; v < kI8BlockVectors; ++v) q[v] = rounded(x[v], v, q[v]);
    } else {
      for (size_t v = 0; v < kI8BlockVectors; ++v) q[v] = rounded(this->scaled(sums, v), v, q[v]);
    }
    V::store_block(y + at, q, zero_point, this->channel_count);
  }

  // Pixels `stride` apart, a vector of all of them at a time: what they share is loaded once.
  template <size_t kPixels>
  [[gnu::always_inline]] void pixels(typename V::Int (*sums)[kI8BlockVectors], size_t at,
                                     size_t stride) const {
    if (kResidual || kSlope == I8Slope::activation) {
      unrolled<kPixels>([&](size_t i)
                            __attribute__((always_inline)) { (*this)(sums[i], at + i * stride); });
      return;
    }
    unrolled<kI8BlockVectors>([&](size_t v) __attribute__((always_inline)) {
      for (size_t i = 0; i < kPixels; ++i) {
        sums[i][v] = rounded(this->scaled(sums[i], v), v, sums[i][v]);
      }
    });
    unrolled<kPixels>([&](size_t i) __attribute__((always_inline)) {
      V::store_block(y + at + i * stride, sums[i], zero_point, this->channel_count);
    });
  }

 private:
  [[gnu::always_inline]] typename V::Int rounded(typename V::Float x, size_t v,
                                                 typename V::Int q) const {
    if (kResidual) x = V::fma(V::to_float(q), residual_scale, x);
    if (kSlope == I8Slope::max) x = V::prelu_max(x, this->slope[v]);
    if (kSlope == I8Slope::select) x = V::prelu(x, this->slope[v]);
    if (kSlope == I8Slope::hard_swish) x = hard_swish<typename V::F32>(x, activation.factor);
    if (kClamps) x = V::clamp(x, this->lo, this->hi);
    return V::round(x);
  }
};

template <class V>
struct FinishF32 : FinishBlock<V> {
  float* y;
  const float* residual;
  bool has_slope;
  ConvActivation activation;

  FinishF32(const I8Finish& f, const I8Channels& c, size_t count)
      : FinishBlock<V>(f, c, count),
        y(static_cast<float*>(f.y)),
        residual(static_cast<const float*>(f.residual)),
        has_slope(f.has_slope),
        activation(f.activation) {
    V::channel_order(this->slope);
  }

  void operator()(const typename V::Int* sums, size_t at) const {
    typename V::Float x[kI8BlockVectors];
    for (size_t v = 0; v < kI8BlockVectors; ++v) x[v] = this->scaled(sums, v);
    V::channel_order(x);
    if (activation.kind != Activation::kNone) activate_block(x);
    for (size_t v = 0; v < kI8BlockVectors && v * V::kLanes < this->channel_count; ++v) {
      const size_t first = at + v * V::kLanes, count = this->channel_count - v * V::kLanes;
      if (residual != nullptr) x[v] = V::add(x[v], V::load_first(residual + first, count));
      if (has_slope) x[v] = V::prelu(x[v], this->slope[v]);
      V::store_first(y + first, V::clamp(x[v], this->lo, this->hi), count);
    }
  }

  template <size_t kPixels>
  [[gnu::always_inline]] void pixels(typename V::Int (*sums)[kI8BlockVectors], size_t at,
                                     size_t stride) const {
    unrolled<kPixels>([&](size_t i)
                          __attribute__((always_inline)) { (*this)(sums[i], at + i * stride); });
  }

 private:
  void activate_block(typename V::Float* x) const {
    using F32 = typename V::F32;
    alignas(kAlignment) float block[kI8BlockVectors * V::kLanes];
    for (size_t v = 0; v < kI8BlockVectors; ++v) F32::store(block + v * V::kLanes, x[v]);
    activate<F32>(activation, block, kI8BlockVectors * V::kLanes);
    for (size_t v = 0; v < kI8BlockVectors; ++v) x[v] = F32::load(block + v * V::kLanes);
  }
};

template <class V, bool kResidual, I8Slope kSlope, class Body>
void with_finish_i8(const I8Finish& f, const I8Channels& channels, size_t count, Body body) {
  if (f.clamps) {
    body(FinishI8<V, kResidual, kSlope, true>(f, channels, count));
  } else {
    body(FinishI8<V, kResidual, kSlope, false>(f, channels, count));
  }
}

template <class V, bool kResidual, class Body>
void with_finish_i8(const I8Finish& f, const I8Channels& channels, size_t count, Body body) {
  if (!f.has_slope) {
    with_finish_i8<V, kResidual, I8Slope::none>(f, channels, count, body);
  } else if (f.slope_is_max) {
    with_finish_i8<V, kResidual, I8Slope::max>(f, channels, count, body);
  } else {
    with_finish_i8<V, kResidual, I8Slope::select>(f, channels, count, body);
  }
}

// Calls `body` with what finishes a pixel of this block: body(finish), finish(sums, at).
template <class V, class Body>
void with_finish(const I8Finish& f, const I8Channels& channels, size_t count, Body body) {
  if (f.f32) {
    body(FinishF32<V>(f, channels, count));
  } else if (f.residual != nullptr) {
    with_finish_i8<V, true>(f, channels, count, body);
  } else if (f.activation.kind == Activation::kNone) {
    with_finish_i8<V, false>(f, channels, count, body);
  } else if (f.activation.kind == Activation::kHardSwish && !f.clamps) {
    body(FinishI8<V, false, I8Slope::hard_swish, false>(f, channels, count));
  } else {
    body(FinishI8<V, false, I8Slope::activation, true>(f, channels, count));
  }
}

}  // namespace
}  // namespace pyedge
