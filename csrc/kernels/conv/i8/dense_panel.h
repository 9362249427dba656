// The panel function of dense.h over a vector type. Internal linkage: every file that includes
// this gets its own copy, compiled for its own instruction set.
#pragma once

#include "kernels/conv/conv.h"
#include "kernels/conv/i8/dense.h"
#include "kernels/conv/i8/finish.h"

namespace pyedge {
namespace {

// Dot products of kPixels rows with all channels of the panel.
template <class V, size_t kPixels>
void dense_sums(const I8Panel& p, const uint8_t* rows, int32_t* sums) {
  constexpr size_t kBlock = kI8BlockVectors * V::kLanes;
  const size_t row_bytes = p.row_bytes;
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
constexpr void (*kDenseSums[])(const I8Panel&, const uint8_t*, int32_t*) = {
    dense_sums<V, 1>, dense_sums<V, 2>, dense_sums<V, 3>,
    dense_sums<V, 4>, dense_sums<V, 5>, dense_sums<V, 6>};

// Tiles of as equal numbers of pixels as can be: a tile of one would read the weights for little.
template <class V>
void dense_panel(const I8Panel& p, const I8Finish& f) {
  static_assert(V::kTilePixels == sizeof kDenseSums<V> / sizeof kDenseSums<V>[0], "");
  with_finish<V>(f, p.channels, p.channel_count, [&](const auto& finish) {
    constexpr size_t kBlock = kI8BlockVectors * V::kLanes;
    alignas(kAlignment) int32_t sums[V::kTilePixels * kBlock];
    const size_t tiles = (p.pixels + V::kTilePixels - 1) / V::kTilePixels;
    size_t pixel = 0, at = p.at;
    for (size_t tile = 0; tile < tiles; ++tile) {
      const size_t pixels = (tile + 1) * p.pixels / tiles - pixel;
      kDenseSums<V>[pixels - 1](p, p.rows + pixel * p.row_bytes, sums);
      pixel += pixels;
      for (size_t i = 0; i < pixels; ++i, at += f.y_stride) {
        typename V::Int block[kI8BlockVectors];
        for (size_t v = 0; v < kI8BlockVectors; ++v) {
          block[v] = V::load(sums + i * kBlock + v * V::kLanes);
        }
        finish(block, at);
      }
    }
  });
}

template <class V>
constexpr I8Dense kDense = {{V::kLanes, V::kGroup, V::kPacking, V::kExact},
                            V::kTileVectors,
                            V::kTilePixels,
                            1,
                            1,
                            1,
                            false,
                            V::pack,
                            nullptr,
                            dense_panel<V>};

template <class Wide, class Narrow>
const I8Dense& dense_isa(const OpArgs& args) {
  const I8Dense &wide = kDense<Wide>, &narrow = kDense<Narrow>;
  return i8_prefers_narrow(args, wide.layout, narrow.layout) ? narrow : wide;
}

// The row of the table of kernels for an instruction set.
template <class Wide, class Narrow>
constexpr Kernel i8_dense_kernel(const char* name, Isa isa,
                                 double (*cost)(const OpArgs&) = nullptr) {
  return {name,
          Op::k_conv,
          isa,
          i8_accepts,
          cost,
          [](const OpArgs& args) {
            return i8_dense_prepared_bytes(args, dense_isa<Wide, Narrow>(args));
          },
          [](const OpArgs& args, void* prepared) {
            i8_dense_prepare(args, dense_isa<Wide, Narrow>(args), prepared);
          },
          [](const OpArgs& args) {
            return i8_dense_scratch_bytes(args, dense_isa<Wide, Narrow>(args));
          },
          [](const OpArgs& args) { return i8_dense_tasks(args, dense_isa<Wide, Narrow>(args)); },
          [](const OpArgs& args, const void* prepared, void* scratch, size_t begin, size_t end) {
            i8_dense_run(args, dense_isa<Wide, Narrow>(args), prepared, scratch, begin, end);
          },
          kConvPacks};
}

}  // namespace
}  // namespace pyedge
