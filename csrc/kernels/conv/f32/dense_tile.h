// The tile function of dense.h over a vector type. Internal linkage: every file that includes
// this gets its own copy, compiled for its own instruction set.
#pragma once

#include "kernels/conv/conv.h"
#include "kernels/conv/f32/dense.h"
#include "kernels/conv/f32/finish.h"

namespace pyedge {
namespace {

// Weights stream from memory; this far ahead of their use (in floats) they are asked for, a cache
// line at a time. Reaching beyond the last is harmless.
constexpr size_t kPrefetchAhead = 2048;
template <class V>
void prefetch_weights(const float* w) {
  constexpr int kLine = 64 / sizeof(float);
#pragma GCC unroll 4
  for (int i = 0; i + kLine <= 2 * V::kLanes; i += kLine) {
    __builtin_prefetch(w + kPrefetchAhead + i, /*rw=*/0, /*locality=*/2);
  }
}

// As many steps as a vector has lanes: one load brings a pixel's factors of all of them.
template <class V, int kPixels, int kVectors>
inline void multiply_lanes(const float* const (&x)[kPixels], size_t k, const float* w,
                           typename V::Vector (&acc)[kVectors][kPixels]) {
  using Vector = typename V::Vector;
  Vector x_k[kPixels];
#pragma GCC unroll 32
  for (int i = 0; i < kPixels; ++i) x_k[i] = V::load(x[i] + k);
#pragma GCC unroll 32
  for (int lane = 0; lane < V::kLanes; ++lane, w += 2 * V::kLanes) {
    Vector w_k[kVectors];
#pragma GCC unroll 32
    for (int n = 0; n < kVectors; ++n) w_k[n] = V::load(w + n * V::kLanes);
#pragma GCC unroll 32
    for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 32
      for (int n = 0; n < kVectors; ++n) {
        acc[n][i] = V::fma_lane(x_k[i], lane, w_k[n], acc[n][i]);
      }
    }
  }
}

template <class V, int kPixels, int kVectors>
void dense_tile(const F32Tile& tile) {
  using Vector = typename V::Vector;
  constexpr int kLanes = V::kLanes;
  Vector acc[kVectors][kPixels];
#pragma GCC unroll 32
  for (int n = 0; n < kVectors; ++n) {
#pragma GCC unroll 32
    for (int i = 0; i < kPixels; ++i) acc[n][i] = V::load(tile.bias + n * kLanes);
  }
  const float* w = tile.w;
  const float* const* runs = tile.runs;
  const size_t length = tile.run_length;
  for (size_t run = 0; run < tile.run_count; ++run, runs += kPixels) {
    const float* x[kPixels];
#pragma GCC unroll 32
    for (int i = 0; i < kPixels; ++i) x[i] = runs[i] + tile.x_offset;
    size_t k = 0;
    if constexpr (V::kMultipliesByLane) {
      for (; k + kLanes <= length; k += kLanes, w += 2 * kLanes * kLanes) {
        multiply_lanes<V, kPixels, kVectors>(x, k, w, acc);
      }
    }
    for (; k < length; ++k, w += 2 * kLanes) {
      prefetch_weights<V>(w);
      Vector w_k[kVectors];
#pragma GCC unroll 32
      for (int n = 0; n < kVectors; ++n) w_k[n] = V::load(w + n * kLanes);
#pragma GCC unroll 32
      for (int i = 0; i < kPixels; ++i) {
        const Vector x_k = V::broadcast(x[i] + k);
#pragma GCC unroll 32
        for (int n = 0; n < kVectors; ++n) acc[n][i] = V::fma(x_k, w_k[n], acc[n][i]);
      }
    }
  }
#pragma GCC unroll 32
  for (int n = 0; n < kVectors; ++n) {
    const int at = n * kLanes;
    finish<V>(acc[n], tile.residual ? tile.residual + at : nullptr,
              tile.slope ? tile.slope + at : nullptr, tile.activation, tile.lo, tile.hi,
              tile.y + at, tile.y_stride,
              n + 1 < kVectors ? static_cast<size_t>(kLanes) : tile.last_lanes);
  }
}

// The tile functions for 1 to kMaxPixels pixels.
template <class V, int kVectors, int kMaxPixels>
struct F32Tiles {
  F32TileFunction by_pixels[kMaxPixels]{};

  constexpr F32Tiles() { fill<kMaxPixels>(); }

 private:
  template <int kPixels>
  constexpr void fill() {
    by_pixels[kPixels - 1] = dense_tile<V, kPixels, kVectors>;
    if constexpr (kPixels > 1) fill<kPixels - 1>();
  }
};
template <class V, int kVectors, int kMaxPixels>
constexpr F32Tiles<V, kVectors, kMaxPixels> kTiles;

// The row of the table of kernels for an instruction set.
template <const F32Dense& kDense>
constexpr Kernel f32_dense_kernel(const char* name, Isa isa) {
  return {name,
          Op::k_conv,
          isa,
          f32_dense_accepts,
          [](const OpArgs& args) { return f32_dense_cost(args, kDense); },
          [](const OpArgs& args) { return f32_dense_prepared_bytes(args, kDense); },
          [](const OpArgs& args, void* prepared) { f32_dense_prepare(args, kDense, prepared); },
          [](const OpArgs& args) { return f32_dense_scratch_bytes(args, kDense); },
          [](const OpArgs& args) { return f32_dense_tasks(args, kDense); },
          [](const OpArgs& args, const void* prepared, void* scratch, size_t begin, size_t end) {
            f32_dense_run(args, kDense, prepared, scratch, begin, end);
          },
          kConvPacks};
}

}  // namespace
}  // namespace pyedge
