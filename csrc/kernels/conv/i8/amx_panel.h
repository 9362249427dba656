// The panel function of dense.h over tiles. A row of packed activations is a row of a tile, a step
// of packed weights a row of 16 channels, and sums go through memory, in the order of layout.h, to
// what finishes them.
//
// 2x2 tiles of sums: four products, of 16 cycles each, for four tiles loaded, which is 4 KiB in 64
// cycles: within what L1 delivers, and 1.5 times what L2 does where neither operand stays in L1.
// Activations of strips do stay, as neighbouring pixels and kernel rows read the same bytes.
//
// Internal linkage: every file that includes this gets its own copy, compiled for its own
// instruction set.
#pragma once

#include "kernels/conv/conv.h"
#include "kernels/conv/i8/amx.h"
#include "kernels/conv/i8/dense.h"
#include "kernels/conv/i8/finish.h"
#include "kernels/conv/i8/strip.h"
#include "kernels/conv/i8/x86_zmm_vnni.h"

namespace pyedge {
namespace {

// Sums of one or two tiles of pixels with all channels of the panel: [kTiles * 16][kBlock].
template <class Tiles, size_t kBlock, size_t kTiles>
void amx_sums(const I8Panel& p, const uint8_t* const* rows, int32_t* sums) {
  constexpr size_t kSumBytes = kBlock * sizeof(int32_t), kStepBytes = kAmxChannels * 4;
  const size_t blocks = i8_dense_tiles(p.steps, kAmxSteps), steps = p.steps / blocks;
  const size_t row_bytes = p.row_bytes, kernel_rows = p.kernel_rows;
  const size_t channels_bytes = kernel_rows * p.steps * kStepBytes;
  const int32_t* initial = p.channels.initial;
  const int8_t* w = p.w;
  for (size_t first = 0; first < kBlock; first += 2 * kAmxChannels, w += channels_bytes) {
    // Every row of the sums begins alike.
    Tiles::template load<0>(initial + first, 0);
    Tiles::template load<1>(initial + first + kAmxChannels, 0);
    if (kTiles == 2) {
      Tiles::template load<2>(initial + first, 0);
      Tiles::template load<3>(initial + first + kAmxChannels, 0);
    }
    for (size_t kernel_row = 0; kernel_row < kernel_rows; ++kernel_row) {
      size_t at = kernel_row * p.kernel_row_bytes;
      for (size_t block = 0; block < blocks; ++block, at += steps * 4, w += steps * kStepBytes) {
        Tiles::template load<6>(w, kStepBytes);
        Tiles::template load<4>(rows[0] + at, row_bytes);
        Tiles::template dot<0, 4, 6>();
        Tiles::template load<7>(w + channels_bytes, kStepBytes);
        Tiles::template dot<1, 4, 7>();
        if (kTiles == 2) {
          Tiles::template load<5>(rows[1] + at, row_bytes);
          Tiles::template dot<2, 5, 6>();
          Tiles::template dot<3, 5, 7>();
        }
      }
    }
    Tiles::template store<0>(sums + first, kSumBytes);
    Tiles::template store<1>(sums + first + kAmxChannels, kSumBytes);
    if (kTiles == 2) {
      Tiles::template store<2>(sums + kAmxRows * kBlock + first, kSumBytes);
      Tiles::template store<3>(sums + kAmxRows * kBlock + first + kAmxChannels, kSumBytes);
    }
  }
}

// Of `count` pixels that are neighbours in the output too.
template <class V, class Finish>
void amx_finish(const Finish& finish, const int32_t* sums, size_t count, size_t at,
                size_t y_stride) {
  constexpr size_t kBlock = kI8BlockVectors * V::kLanes;
  for (size_t i = 0; i < count; ++i, sums += kBlock, at += y_stride) {
    typename V::Int block[kI8BlockVectors];
    for (size_t v = 0; v < kI8BlockVectors; ++v) block[v] = V::load(sums + v * V::kLanes);
    finish(block, at);
  }
}

// All tiles have the same rows: the last one begins early and repeats sums of the one before it.
// A pixel is finished once, as the residual may lie where the output goes.
template <class Tiles, class V>
void amx_panel(const I8Panel& p, const I8Finish& f) {
  constexpr size_t kBlock = kI8BlockVectors * V::kLanes;
  with_finish<V>(f, p.channels, p.channel_count, [&](const auto& finish) {
    alignas(kAlignment) int32_t sums[2 * kAmxRows * kBlock];
    const size_t tile_rows = p.pixels < kAmxRows ? p.pixels : kAmxRows;
    const size_t pitch = p.pitch, width = p.width;
    size_t at = p.at, x = 0;
    for (size_t done = 0; done < p.pixels;) {
      const size_t left = p.pixels - done, tiles = left > tile_rows ? 2 : 1;
      const uint8_t* rows[2];
      size_t finished[2];  // rows of the tile
      for (size_t t = 0; t < tiles; ++t) {
        const size_t want = done + t * tile_rows, last = p.pixels - tile_rows;
        const size_t first = want < last ? want : last;
        rows[t] = p.rows + first * p.row_bytes;
        finished[t] = want - first;
      }
      if (tiles == 2) {
        amx_sums<Tiles, kBlock, 2>(p, rows, sums);
      } else {
        amx_sums<Tiles, kBlock, 1>(p, rows, sums);
      }
      for (size_t t = 0; t < tiles; ++t) {
        for (size_t row = finished[t], count; row < tile_rows; row += count, done += count) {
          const bool inside = x < width;
          const size_t run = (inside ? width : pitch) - x;
          count = run < tile_rows - row ? run : tile_rows - row;
          if (inside) {
            amx_finish<V>(finish, sums + (t * kAmxRows + row) * kBlock, count, at, f.y_stride);
            at += count * f.y_stride;
          }
          x = x + count == pitch ? 0 : x + count;
        }
      }
    }
  });
}

inline uint8_t* amx_pack(const I8Run* runs, size_t count, int32_t, uint8_t* packed) {
  return Vnni::copy(runs, count, 0, packed);
}

template <class Tiles, class V>
constexpr I8Dense kAmxDense = {{V::kLanes, 4, I8Packing::plain, V::kExact},
                               kAmxChannels / V::kLanes,
                               2 * kAmxRows,
                               kAmxRows,
                               1,
                               kAmxSteps,
                               true,
                               amx_pack,
                               nullptr,
                               amx_panel<Tiles, V>};

template <class Tiles>
const I8Dense& amx_isa(const OpArgs& args) {
  return i8_dense_fitting(args, kAmxDense<Tiles, Vnni>, kAmxDense<Tiles, NarrowVnni>);
}

// The rows of the table of kernels.
template <class Tiles>
constexpr Kernel i8_amx_kernel(const char* name, Isa isa) {
  return {name,
          Op::k_conv,
          isa,
          i8_accepts,
          amx_cost,
          [](const OpArgs& args) { return i8_dense_prepared_bytes(args, amx_isa<Tiles>(args)); },
          [](const OpArgs& args, void* prepared) {
            i8_dense_prepare(args, amx_isa<Tiles>(args), prepared);
          },
          [](const OpArgs& args) { return i8_dense_scratch_bytes(args, amx_isa<Tiles>(args)); },
          [](const OpArgs& args) { return i8_dense_tasks(args, amx_isa<Tiles>(args)); },
          [](const OpArgs& args, const void* prepared, void* scratch, size_t begin, size_t end) {
            const I8Dense& dense = amx_isa<Tiles>(args);
            const AmxConfig config = amx_config(args, dense.layout);
            Tiles::configure(config);
            i8_dense_run(args, dense, prepared, scratch, begin, end);
            Tiles::release();
          },
          kConvPacks};
}

template <class Tiles>
constexpr Kernel i8_strip_amx_kernel(const char* name, Isa isa) {
  return {name,
          Op::k_conv,
          isa,
          i8_strip_accepts,
          amx_strip_cost,
          [](const OpArgs& args) { return i8_strip_prepared_bytes(args, amx_isa<Tiles>(args)); },
          [](const OpArgs& args, void* prepared) {
            i8_strip_prepare(args, amx_isa<Tiles>(args), prepared);
          },
          [](const OpArgs& args) { return i8_strip_scratch_bytes(args, amx_isa<Tiles>(args)); },
          [](const OpArgs& args) { return i8_strip_tasks(args, amx_isa<Tiles>(args)); },
          [](const OpArgs& args, const void* prepared, void* scratch, size_t begin, size_t end) {
            const I8Dense& dense = amx_isa<Tiles>(args);
            const AmxConfig config = amx_tiles(kAmxRows, i8_strip_tile_steps(args, dense));
            Tiles::configure(config);
            i8_strip_run(args, dense, prepared, scratch, begin, end);
            Tiles::release();
          },
          kConvPacks};
}

}  // namespace
}  // namespace pyedge
