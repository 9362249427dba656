// The row function of depthwise.h over a vector type. Internal linkage: every file that includes
// this gets its own copy, compiled for its own instruction set.
#pragma once

#include "kernels/conv/i8/depthwise.h"
#include "kernels/conv/i8/finish.h"

namespace pyedge {
namespace {

constexpr size_t kRowTile = 8;  // outputs accumulated at once

// Columns [begin, end) of the image, interleaved: [columns][row_groups][4 vectors].
template <class V>
void build_columns(const I8DepthwiseRow& row, int32_t begin, int32_t end, int32_t* columns) {
  constexpr size_t kBlock = kI8BlockVectors * V::kLanes;
  const typename V::Int padding = V::packed_zero_point(row.zero_point);
  for (int32_t x = begin; x < end; ++x) {
    const bool inside = x >= 0 && x < row.in_w;
    for (size_t group = 0; group < row.row_groups; ++group, columns += kBlock) {
      typename V::Int column[kI8BlockVectors] = {padding, padding, padding, padding};
      if (inside) {
        const int8_t* pixels[V::kGroup];
        for (size_t r = 0; r < V::kGroup; ++r) {
          const size_t at = group * V::kGroup + r;
          pixels[r] = row.rows[at] + static_cast<size_t>(x) * row.pixel_bytes[at];
        }
        V::interleave(pixels, row.zero_point, column);
      }
      for (size_t v = 0; v < kI8BlockVectors; ++v) V::store(columns + v * V::kLanes, column[v]);
    }
  }
}

// kPixels outputs, the first of which begins at `columns`; `step` int32 from one to the next.
template <class V, size_t kPixels>
void depthwise_sums(const I8DepthwiseRow& row, const int32_t* columns, size_t step,
                    int32_t* sums) {
  constexpr size_t kBlock = kI8BlockVectors * V::kLanes, kVectorBytes = V::kLanes * V::kGroup;
  const size_t column = row.row_groups * kBlock;
  const size_t tap_step = static_cast<size_t>(row.dilation_w) * column;
  for (size_t v = 0; v < kI8BlockVectors; ++v) {
    typename V::Int acc[kPixels];
    for (size_t i = 0; i < kPixels; ++i) acc[i] = V::load(row.channels.initial + v * V::kLanes);
    const int8_t* w = row.w + v * kVectorBytes;
    const int32_t* a = columns + v * V::kLanes;
    for (int32_t kx = 0; kx < row.kernel_w; ++kx, a += tap_step) {
      for (size_t at = 0; at < column; at += kBlock, w += kI8BlockVectors * kVectorBytes) {
        const typename V::Int weights = V::load_weights(w);
        for (size_t i = 0; i < kPixels; ++i) {
          acc[i] = V::dot(acc[i], V::load(a + at + i * step), weights);
        }
      }
    }
    for (size_t i = 0; i < kPixels; ++i) V::store(sums + i * kBlock + v * V::kLanes, acc[i]);
  }
}

template <class V>
void depthwise_tile(const I8DepthwiseRow& row, size_t pixels, const int32_t* columns, size_t step,
                    int32_t* sums) {
  switch (pixels) {
    case 1:
      return depthwise_sums<V, 1>(row, columns, step, sums);
    case 2:
      return depthwise_sums<V, 2>(row, columns, step, sums);
    case 3:
      return depthwise_sums<V, 3>(row, columns, step, sums);
    case 4:
      return depthwise_sums<V, 4>(row, columns, step, sums);
    case 5:
      return depthwise_sums<V, 5>(row, columns, step, sums);
    case 6:
      return depthwise_sums<V, 6>(row, columns, step, sums);
    case 7:
      return depthwise_sums<V, 7>(row, columns, step, sums);
    default:
      return depthwise_sums<V, kRowTile>(row, columns, step, sums);
  }
}

template <class V>
void depthwise_row(const I8DepthwiseRow& row, const I8Finish& f) {
  constexpr size_t kBlock = kI8BlockVectors * V::kLanes;
  alignas(kAlignment) int32_t sums[kRowTile * kBlock];
  const I8FinishFunction finish = finish_function<V>(f);
  int32_t* columns = static_cast<int32_t*>(row.columns);
  const size_t step = static_cast<size_t>(row.stride_w) * row.row_groups * kBlock;
  const int32_t span = (row.kernel_w - 1) * row.dilation_w + 1;
  for (int32_t begin = 0; begin < row.out_w; begin += kI8Strip) {
    const int32_t end = row.out_w - begin < kI8Strip ? row.out_w : begin + kI8Strip;
    build_columns<V>(row, begin * row.stride_w - row.pad_left,
                     (end - 1) * row.stride_w - row.pad_left + span, columns);
    const size_t count = static_cast<size_t>(end - begin);
    const size_t tiles = (count + kRowTile - 1) / kRowTile;
    size_t pixel = 0;
    for (size_t tile = 0; tile < tiles; ++tile) {
      const size_t pixels = (tile + 1) * count / tiles - pixel;
      depthwise_tile<V>(row, pixels, columns + pixel * step, step, sums);
      const size_t at = row.at + (static_cast<size_t>(begin) + pixel) * f.y_stride;
      finish(f, row.channels, sums, pixels, at, row.channel_count);
      pixel += pixels;
    }
  }
}

// The row of the table of kernels for an instruction set.
template <class V>
constexpr I8Depthwise depthwise_isa() {
  return {{V::kLanes, V::kGroup, V::kBiased}, depthwise_row<V>};
}

template <class V>
constexpr Kernel i8_depthwise_kernel(const char* name, Isa isa) {
  return {name,
          Op::k_conv,
          isa,
          i8_depthwise_accepts,
          i8_depthwise_cost,
          [](const OpArgs& args) { return i8_depthwise_prepared_bytes(args, depthwise_isa<V>()); },
          [](const OpArgs& args, void* prepared) {
            i8_depthwise_prepare(args, depthwise_isa<V>(), prepared);
          },
          [](const OpArgs& args) { return i8_depthwise_scratch_bytes(args, depthwise_isa<V>()); },
          [](const OpArgs& args) { return i8_depthwise_tasks(args, depthwise_isa<V>()); },
          [](const OpArgs& args, const void* prepared, void* scratch, size_t begin, size_t end) {
            i8_depthwise_run(args, depthwise_isa<V>(), prepared, scratch, begin, end);
          }};
}

}  // namespace
}  // namespace pyedge
