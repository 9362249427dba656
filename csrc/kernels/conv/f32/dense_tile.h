// The tile function of dense.h over a vector type. Internal linkage: every file that includes
// this gets its own copy, compiled for its own instruction set.
#pragma once

#include "kernels/conv/f32/dense.h"
#include "kernels/conv/f32/finish.h"

namespace pyedge {
namespace {

template <class V, int kPixels, int kVectors>
void dense_tile(const F32Tile& tile) {
  using Vector = typename V::Vector;
  constexpr int kLanes = V::kLanes;
  Vector acc[kPixels][kVectors];
#pragma GCC unroll 32
  for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 32
    for (int n = 0; n < kVectors; ++n) acc[i][n] = V::load(tile.bias + n * kLanes);
  }
  const float* w = tile.w;
  const float* const* runs = tile.runs;
  const size_t length = tile.run_length;
  for (size_t run = 0; run < tile.run_count; ++run, runs += kPixels) {
    const float* x[kPixels];
#pragma GCC unroll 32
    for (int i = 0; i < kPixels; ++i) x[i] = runs[i] + tile.x_offset;
    for (size_t k = 0; k < length; ++k, w += 2 * kLanes) {
      Vector w_k[kVectors];
#pragma GCC unroll 32
      for (int n = 0; n < kVectors; ++n) w_k[n] = V::load(w + n * kLanes);
#pragma GCC unroll 32
      for (int i = 0; i < kPixels; ++i) {
        const Vector x_k = V::broadcast(x[i] + k);
#pragma GCC unroll 32
        for (int n = 0; n < kVectors; ++n) acc[i][n] = V::fma(x_k, w_k[n], acc[i][n]);
      }
    }
  }
  const Vector lo = V::fill(tile.lo), hi = V::fill(tile.hi);
#pragma GCC unroll 32
  for (int i = 0; i < kPixels; ++i) {
#pragma GCC unroll 32
    for (int n = 0; n < kVectors; ++n) {
      const size_t at = static_cast<size_t>(i) * tile.y_stride + static_cast<size_t>(n * kLanes);
      finish<V>(acc[i][n], tile.residual ? tile.residual + at : nullptr,
                tile.slope ? tile.slope + n * kLanes : nullptr, lo, hi, tile.y + at,
                n + 1 < kVectors ? static_cast<size_t>(kLanes) : tile.last_lanes);
    }
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
          }};
}

}  // namespace
}  // namespace pyedge
