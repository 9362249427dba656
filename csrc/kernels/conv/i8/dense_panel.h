// The panel function of dense.h over a vector type. Internal linkage: every file that includes
// this gets its own copy, compiled for its own instruction set.
#pragma once

#include "kernels/conv/conv.h"
#include "kernels/conv/i8/dense.h"
#include "kernels/conv/i8/finish.h"

namespace pyedge {
namespace {

// Dot products of kPixels rows with the channels of a tile, whose weights begin at `w`.
template <class V, size_t kPixels>
[[gnu::always_inline]] inline void dense_products(const I8Panel& p, const uint8_t* rows,
                                                  const int8_t* w, const int32_t* initial,
                                                  typename V::Int (*acc)[V::kTileVectors]) {
  const size_t row_bytes = p.row_bytes;
  for (size_t i = 0; i < kPixels; ++i) {
    for (size_t v = 0; v < V::kTileVectors; ++v) acc[i][v] = V::load(initial + v * V::kLanes);
  }
  for (size_t step = 0; step < p.steps; ++step, rows += 4) {
    typename V::Int weights[V::kTileVectors];
    for (size_t v = 0; v < V::kTileVectors; ++v, w += V::kLanes * V::kGroup) {
      weights[v] = V::load_weights(w);
    }
    for (size_t i = 0; i < kPixels; ++i) {
      const typename V::Int activations = V::broadcast(rows + i * row_bytes);
      for (size_t v = 0; v < V::kTileVectors; ++v) {
        acc[i][v] = V::dot(acc[i][v], activations, weights[v]);
      }
    }
  }
}

// With all channels of the panel.
template <class V, size_t kPixels>
void dense_sums(const I8Panel& p, const uint8_t* rows, int32_t* sums) {
  constexpr size_t kBlock = kI8BlockVectors * V::kLanes;
  const size_t tile_weights = p.steps * V::kTileVectors * V::kLanes * V::kGroup;
  const int8_t* w = p.w;
  for (size_t first = 0; first < kI8BlockVectors; first += V::kTileVectors, w += tile_weights) {
    typename V::Int acc[kPixels][V::kTileVectors];
    dense_products<V, kPixels>(p, rows, w, p.channels.initial + first * V::kLanes, acc);
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

// The pixels from `pixel` on. Tiles of as equal numbers of pixels as can be: a tile of one would
// read the weights for little.
template <class V, class Finish>
void dense_tiles(const I8Panel& p, const Finish& finish, size_t y_stride, size_t pixel) {
  static_assert(V::kTilePixels == sizeof kDenseSums<V> / sizeof kDenseSums<V>[0], "");
  constexpr size_t kBlock = kI8BlockVectors * V::kLanes;
  alignas(kAlignment) int32_t sums[V::kTilePixels * kBlock];
  const size_t left = p.pixels - pixel, tiles = (left + V::kTilePixels - 1) / V::kTilePixels;
  const uint8_t* rows = p.rows + pixel * p.row_bytes;
  size_t done = 0, at = p.at + pixel * y_stride;
  for (size_t tile = 0; tile < tiles; ++tile) {
    const size_t pixels = (tile + 1) * left / tiles - done;
    kDenseSums<V>[pixels - 1](p, rows + done * p.row_bytes, sums);
    done += pixels;
    for (size_t i = 0; i < pixels; ++i, at += y_stride) {
      typename V::Int block[kI8BlockVectors];
      for (size_t v = 0; v < kI8BlockVectors; ++v) {
        block[v] = V::load(sums + i * kBlock + v * V::kLanes);
      }
      finish(block, at);
    }
  }
}

// Where sums are short, so that the panel stays in L1 and pairs of pixels may read it: finished
// from registers. On Zen 4 storing a vector of sums takes as long as nearly two products, and what
// finishes one pair runs beside the products of the next. Returns how many pixels that were.
template <class V, class Finish>
size_t dense_pairs(const I8Panel& p, const Finish& finish, size_t y_stride) {
  constexpr size_t kPixels = 2;
  size_t pixel = 0;
  for (; pixel + kPixels <= p.pixels; pixel += kPixels) {
    typename V::Int acc[kPixels][V::kTileVectors], sums[kPixels][V::kTileVectors];
    const uint8_t* rows = p.rows + pixel * p.row_bytes;
    dense_products<V, kPixels>(p, rows, p.w, p.channels.initial, acc);
    // Or what GCC cannot hold in registers while it finishes, it keeps in memory before.
    for (size_t i = 0; i < kPixels; ++i) {
      for (size_t v = 0; v < V::kTileVectors; ++v) sums[i][v] = V::in_register(acc[i][v]);
    }
    finish.template pixels<kPixels>(sums, p.at + pixel * y_stride, y_stride);
  }
  return pixel;
}

template <class V>
void dense_panel(const I8Panel& p, const I8Finish& f) {
  constexpr size_t kShort = 64;
  with_finish<V>(f, p.channels, p.channel_count, [&](const auto& finish) {
    size_t pixel = 0;
    if constexpr (V::kTileVectors == kI8BlockVectors) {
      if (p.steps <= kShort) pixel = dense_pairs<V>(p, finish, f.y_stride);
    }
    dense_tiles<V>(p, finish, f.y_stride, pixel);
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
  return i8_dense_fitting(args, kDense<Wide>, kDense<Narrow>);
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
