// The panel function of dense.h over a vector type. Internal linkage: every file that includes
// this gets its own copy, compiled for its own instruction set.
#pragma once

#include "kernels/conv/i8/dense.h"
#include "kernels/conv/i8/finish.h"

namespace pyedge {
namespace {

// Dot products of kPixels rows with all channels of the panel.
template <class V, size_t kPixels>
void dense_sums(const I8Panel& p, const uint8_t* rows, int32_t* sums) {
  constexpr size_t kBlock = kI8BlockVectors * V::kLanes;
  const size_t row_bytes = p.steps * 4;
  const int8_t* w = p.w;
  for (size_t first = 0; first < kI8BlockVectors; first += V::kTileVectors) {
    typename V::Int acc[kPixels][V::kTileVectors];
    for (size_t i = 0; i < kPixels; ++i) {
      for (size_t v = 0; v < V::kTileVectors; ++v) {
        acc[i][v] = V::load(p.channels.initial + (first + v) * V::kLanes);
      }
    }
    const uint8_t* a = rows;
    for (size_t step = 0; step < p.steps; ++step, a += 4) {
      typename V::Int weights[V::kTileVectors];
      for (size_t v = 0; v < V::kTileVectors; ++v, w += V::kLanes * V::kGroup) {
        weights[v] = V::load_weights(w);
      }
      for (size_t i = 0; i < kPixels; ++i) {
        const typename V::Int activations = V::broadcast(a + i * row_bytes);
        for (size_t v = 0; v < V::kTileVectors; ++v) {
          acc[i][v] = V::dot(acc[i][v], activations, weights[v]);
        }
      }
    }
    for (size_t i = 0; i < kPixels; ++i) {
      for (size_t v = 0; v < V::kTileVectors; ++v) {
        V::store(sums + i * kBlock + (first + v) * V::kLanes, acc[i][v]);
      }
    }
  }
}

template <class V>
void dense_tile(const I8Panel& p, size_t pixels, const uint8_t* rows, int32_t* sums) {
  static_assert(V::kTilePixels == 6, "one case for each number of pixels");
  switch (pixels) {
    case 1:
      return dense_sums<V, 1>(p, rows, sums);
    case 2:
      return dense_sums<V, 2>(p, rows, sums);
    case 3:
      return dense_sums<V, 3>(p, rows, sums);
    case 4:
      return dense_sums<V, 4>(p, rows, sums);
    case 5:
      return dense_sums<V, 5>(p, rows, sums);
    default:
      return dense_sums<V, 6>(p, rows, sums);
  }
}

// Tiles of as equal numbers of pixels as can be: a tile of one would read the weights for little.
template <class V>
void dense_panel(const I8Panel& p, const I8Finish& f) {
  alignas(kAlignment) int32_t sums[V::kTilePixels * kI8BlockVectors * V::kLanes];
  const I8FinishFunction finish = finish_function<V>(f);
  const size_t tiles = (p.pixels + V::kTilePixels - 1) / V::kTilePixels;
  size_t pixel = 0;
  for (size_t tile = 0; tile < tiles; ++tile) {
    const size_t pixels = (tile + 1) * p.pixels / tiles - pixel;
    dense_tile<V>(p, pixels, p.rows + pixel * p.steps * 4, sums);
    finish(f, p.channels, sums, pixels, p.at + pixel * f.y_stride, p.channel_count);
    pixel += pixels;
  }
}

// The row of the table of kernels for an instruction set.
template <class V>
constexpr I8Layout layout_of() {
  return {V::kLanes, V::kGroup, V::kBiased};
}

template <class V>
constexpr I8Dense dense_isa() {
  return {layout_of<V>(), V::kTileVectors, V::kTilePixels, V::pack, dense_panel<V>};
}

template <class V>
constexpr Kernel i8_dense_kernel(const char* name, Isa isa) {
  return {name,
          Op::k_conv,
          isa,
          i8_accepts,
          nullptr,
          [](const OpArgs& args) { return i8_dense_prepared_bytes(args, dense_isa<V>()); },
          [](const OpArgs& args, void* prepared) {
            i8_dense_prepare(args, dense_isa<V>(), prepared);
          },
          [](const OpArgs& args) { return i8_dense_scratch_bytes(args, dense_isa<V>()); },
          [](const OpArgs& args) { return i8_dense_tasks(args, dense_isa<V>()); },
          [](const OpArgs& args, const void* prepared, void* scratch, size_t begin, size_t end) {
            i8_dense_run(args, dense_isa<V>(), prepared, scratch, begin, end);
          }};
}

}  // namespace
}  // namespace pyedge
