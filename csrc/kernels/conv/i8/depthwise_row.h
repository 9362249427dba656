// The function of depthwise.h over a vector type. Internal linkage: every file that includes
// this gets its own copy, compiled for its own instruction set.
#pragma once

#include "kernels/conv/conv.h"
#include "kernels/conv/i8/depthwise.h"
#include "kernels/conv/i8/finish.h"

namespace pyedge {
namespace {

// Columns [begin, end) of the image, interleaved: [columns][row_groups][4 vectors].
template <class V>
void build_columns(const I8DepthwiseRows& row, int32_t begin, int32_t end, int32_t* columns) {
  constexpr size_t kBlock = kI8BlockVectors * V::kLanes;
  const typename V::Int padding = V::packed_zero_point(row.zero_point);
  const int32_t in_w = row.in_w, zero_point = row.zero_point, first = begin > 0 ? begin : 0;
  const size_t column_step = row.row_groups * kBlock;
  for (size_t group = 0; group < row.row_groups; ++group) {
    const int8_t* pixels[V::kGroup];
    size_t pixel_bytes[V::kGroup];
    for (size_t r = 0; r < V::kGroup; ++r) {
      pixel_bytes[r] = row.pixel_bytes[group * V::kGroup + r];
      pixels[r] = row.rows[group * V::kGroup + r] + static_cast<size_t>(first) * pixel_bytes[r];
    }
    int32_t* column = columns + group * kBlock;
    const auto pad = [&](int32_t from, int32_t to) {
      for (int32_t x = from; x < to; ++x, column += column_step) {
        for (size_t v = 0; v < kI8BlockVectors; ++v) V::store(column + v * V::kLanes, padding);
      }
    };
    pad(begin, first < end ? first : end);
    const int32_t last = in_w < end ? in_w : end;
    for (int32_t x = first; x < last; ++x, column += column_step) {
      typename V::Int bytes[kI8BlockVectors];
      V::interleave(pixels, zero_point, bytes);
      for (size_t r = 0; r < V::kGroup; ++r) pixels[r] += pixel_bytes[r];
      for (size_t v = 0; v < kI8BlockVectors; ++v) V::store(column + v * V::kLanes, bytes[v]);
    }
    pad(last > begin ? last : begin, end);
  }
}

// kPixels outputs, the first of which begins at `columns`; `step` int32 from one to the next.
template <class V, size_t kPixels, class Finish>
void depthwise_pixels(const I8DepthwiseRows& row, const int8_t* w, const int32_t* columns,
                      size_t step, const Finish& finish, size_t y_stride, size_t at) {
  constexpr size_t kVectorBytes = V::kLanes * V::kGroup;
  typename V::Int acc[kPixels][kI8BlockVectors];
  for (size_t v = 0; v < kI8BlockVectors; ++v) {
    for (size_t i = 0; i < kPixels; ++i) {
      acc[i][v] = V::load(row.channels.initial + v * V::kLanes);
    }
  }
  for (size_t tap = 0; tap < row.taps; ++tap, w += kI8BlockVectors * kVectorBytes) {
    const int32_t* a = columns + row.tap_offsets[tap];
    for (size_t v = 0; v < kI8BlockVectors; ++v) {
      // GCC would rather load them again for the next pixel, and loads are what limits this loop.
      const typename V::Int weights = V::in_register(V::load_weights(w + v * kVectorBytes));
      for (size_t i = 0; i < kPixels; ++i) {
        acc[i][v] = V::dot(acc[i][v], V::load(a + i * step + v * V::kLanes), weights);
      }
    }
  }
  for (size_t i = 0; i < kPixels; ++i) finish(acc[i], at + i * y_stride);
}

template <class V, class Finish>
void depthwise_set(const I8DepthwiseRows& row, const Finish& finish, size_t y_stride) {
  constexpr size_t kBlock = kI8BlockVectors * V::kLanes, kPixels = V::kDepthwisePixels;
  const size_t step = static_cast<size_t>(row.stride_w) * row.row_groups * kBlock;
  const size_t weights = row.taps * kBlock * V::kGroup, out_rows = i8_out_rows(row);
  const int32_t span = (row.kernel_w - 1) * row.dilation_w + 1;
  for (int32_t begin = 0; begin < row.out_w; begin += kI8Strip) {
    const int32_t end = row.out_w - begin < kI8Strip ? row.out_w : begin + kI8Strip;
    build_columns<V>(row, begin * row.stride_w - row.pad_left,
                     (end - 1) * row.stride_w - row.pad_left + span, row.columns);
    for (size_t r = 0; r < out_rows; ++r) {
      const int8_t* w = row.w + r * weights;
      const int32_t* columns = row.columns;
      size_t at = row.at + r * row.y_row + static_cast<size_t>(begin) * y_stride;
      size_t left = static_cast<size_t>(end - begin);
      for (; left >= kPixels; left -= kPixels, columns += kPixels * step) {
        depthwise_pixels<V, kPixels>(row, w, columns, step, finish, y_stride, at);
        at += kPixels * y_stride;
      }
      for (; left > 0; --left, columns += step, at += y_stride) {
        depthwise_pixels<V, 1>(row, w, columns, step, finish, y_stride, at);
      }
    }
  }
}

template <class V>
void depthwise_rows(const I8DepthwiseRows& rows, const I8Finish& f) {
  const size_t y_stride = f.y_stride;
  with_finish<V>(f, rows.channels, rows.channel_count, [&](const auto& finish) {
    I8DepthwiseRows set = rows;
    do depthwise_set<V>(set, finish, y_stride);
    while (i8_next_set(&set));
  });
}

template <class V>
constexpr I8Depthwise kDepthwise = {{V::kLanes, V::kGroup, V::kPacking, V::kExact},
                                    depthwise_rows<V>};

template <class Wide, class Narrow>
const I8Depthwise& depthwise_isa(const OpArgs& args) {
  const I8Depthwise &wide = kDepthwise<Wide>, &narrow = kDepthwise<Narrow>;
  const size_t channels = static_cast<size_t>(conv_geometry(args).out_c);
  return i8_prefers_narrow(channels, wide.layout, narrow.layout) ? narrow : wide;
}

// The row of the table of kernels for an instruction set.
template <class Wide, class Narrow>
constexpr Kernel i8_depthwise_kernel(const char* name, Isa isa) {
  return {name,
          Op::k_conv,
          isa,
          [](const OpArgs& args) { return i8_depthwise_accepts(args, kDepthwise<Wide>); },
          i8_depthwise_cost,
          [](const OpArgs& args) {
            return i8_depthwise_prepared_bytes(args, depthwise_isa<Wide, Narrow>(args));
          },
          [](const OpArgs& args, void* prepared) {
            i8_depthwise_prepare(args, depthwise_isa<Wide, Narrow>(args), prepared);
          },
          [](const OpArgs& args) {
            return i8_depthwise_scratch_bytes(args, depthwise_isa<Wide, Narrow>(args));
          },
          [](const OpArgs& args) {
            return i8_depthwise_tasks(args, depthwise_isa<Wide, Narrow>(args));
          },
          [](const OpArgs& args, const void* prepared, void* scratch, size_t begin, size_t end) {
            i8_depthwise_run(args, depthwise_isa<Wide, Narrow>(args), prepared, scratch, begin,
                             end);
          },
          kConvPacks};
}

}  // namespace
}  // namespace pyedge
