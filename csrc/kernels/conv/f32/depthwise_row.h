// The row function of depthwise.h over a vector type. Internal linkage: every file that includes
// this gets its own copy, compiled for its own instruction set.
//
// The last vector of a pixel may read past its channels, which kSlack allows; it never writes
// there.
#pragma once

#include "kernels/conv/conv.h"
#include "kernels/conv/f32/depthwise.h"
#include "kernels/conv/f32/finish.h"

namespace pyedge {
namespace {

// The lanes of a depthwise layer.
template <class V>
struct OwnChannels {
  static constexpr size_t planes = 1;
  size_t first;  // channel of the image in the first lane

  OwnChannels() = default;
  OwnChannels(const F32DepthwiseRow&, size_t channel) : first(channel) {}
  static typename V::Vector load(const float* x) { return V::load_once(x); }
};

// The lanes of groups.
template <class V>
struct Group {
  size_t first;
  typename V::Index lanes;

  Group() = default;
  Group(const F32DepthwiseRow& row, size_t channel)
      : first(channel / row.group_channels * row.planes),
        lanes(V::load_index(row.lanes + channel)) {}
  typename V::Vector load(const float* x) const { return V::permute(V::load(x), lanes); }
};

// Of two input channels: the weights of both stay in registers.
template <class V>
struct PairChannels : Group<V> {
  static constexpr size_t planes = 2;
  using Group<V>::Group;
};

template <class V>
struct GroupChannels : Group<V> {
  size_t planes;

  GroupChannels() = default;
  GroupChannels(const F32DepthwiseRow& row, size_t channel)
      : Group<V>(row, channel), planes(row.planes) {}
};

// kPixels neighbours at once: a column of the image is loaded once for all that use it. Needs
// taps side by side (x_tap_x is the distance of two pixels of the image).
template <class V, template <class> class Channels, int kKernelW, int kStride, int kPixels>
void depthwise_tile(const F32DepthwiseRow& row, size_t pixel) {
  using Vector = typename V::Vector;
  constexpr int kColumns = (kPixels - 1) * kStride + kKernelW;
  const float* x = row.x + pixel * row.x_pixel;
  for (size_t c = 0; c < row.channels; c += V::kLanes) {
    const Channels<V> channels(row, c);
    Vector acc[kPixels];
#pragma GCC unroll 32
    for (int i = 0; i < kPixels; ++i) acc[i] = V::load(row.bias + c);
    for (size_t ky = 0; ky < row.kernel_h; ++ky) {
      const float* x_row = x + ky * row.x_tap_y + channels.first;
      const float* w_row = row.w + ky * row.w_tap_y + c;
#pragma GCC unroll 32
      for (int column = 0; column < kColumns; ++column) {
        const float* x_tap = x_row + static_cast<size_t>(column) * row.x_tap_x;
#pragma GCC unroll 2  // as many as PairChannels has
        for (size_t plane = 0; plane < channels.planes; ++plane) {
          const Vector v = channels.load(x_tap + plane);
          const float* w_plane = w_row + plane * row.w_plane;
#pragma GCC unroll 32
          for (int i = 0; i < kPixels; ++i) {
            const int kx = column - i * kStride;
            if (kx < 0 || kx >= kKernelW) continue;
            acc[i] = V::fma(v, V::load(w_plane + static_cast<size_t>(kx) * row.w_tap_x), acc[i]);
          }
        }
      }
    }
    const size_t at = pixel * row.y_pixel + c;
    finish<V>(acc, row.residual ? row.residual + at : nullptr, row.slope ? row.slope + c : nullptr,
              row.activation, row.lo, row.hi, row.y + at, row.y_pixel, row.channels - c);
  }
}

// Any kernel: kVectors of one pixel at once.
template <class V, template <class> class Channels, int kVectors>
void depthwise_vectors(const F32DepthwiseRow& row, size_t pixel, size_t c) {
  using Vector = typename V::Vector;
  const float* x = row.x + pixel * row.x_pixel;
  Channels<V> channels[kVectors];
  Vector acc[kVectors];
#pragma GCC unroll 32
  for (int n = 0; n < kVectors; ++n) {
    channels[n] = Channels<V>(row, c + static_cast<size_t>(n * V::kLanes));
    acc[n] = V::load(row.bias + c + n * V::kLanes);
  }
  for (size_t ky = 0; ky < row.kernel_h; ++ky) {
    for (size_t kx = 0; kx < row.kernel_w; ++kx) {
      const float* x_tap = x + ky * row.x_tap_y + kx * row.x_tap_x;
      const float* w_tap = row.w + ky * row.w_tap_y + kx * row.w_tap_x + c;
      for (size_t plane = 0; plane < channels[0].planes; ++plane, w_tap += row.w_plane) {
#pragma GCC unroll 32
        for (int n = 0; n < kVectors; ++n) {
          const Vector v = channels[n].load(x_tap + channels[n].first + plane);
          acc[n] = V::fma(v, V::load(w_tap + n * V::kLanes), acc[n]);
        }
      }
    }
  }
#pragma GCC unroll 32
  for (int n = 0; n < kVectors; ++n) {
    const size_t channel = c + static_cast<size_t>(n * V::kLanes);
    const size_t at = pixel * row.y_pixel + channel;
    Vector vector[1] = {acc[n]};
    finish<V>(vector, row.residual ? row.residual + at : nullptr,
              row.slope ? row.slope + channel : nullptr, row.activation, row.lo, row.hi, row.y + at,
              0, row.channels - channel);
  }
}

template <class V, template <class> class Channels>
void depthwise_pixel(const F32DepthwiseRow& row, size_t pixel) {
  constexpr size_t kLanes = static_cast<size_t>(V::kLanes);
  size_t c = 0;
  for (; c + 3 * kLanes < row.channels; c += 4 * kLanes) {
    depthwise_vectors<V, Channels, 4>(row, pixel, c);
  }
  for (; c < row.channels; c += kLanes) depthwise_vectors<V, Channels, 1>(row, pixel, c);
}

template <class V, template <class> class Channels, int kKernelW, int kStride>
void depthwise_tiles(const F32DepthwiseRow& row) {
  size_t pixel = 0;
  for (; pixel + 8 <= row.pixels; pixel += 8) {
    depthwise_tile<V, Channels, kKernelW, kStride, 8>(row, pixel);
  }
  if (pixel + 4 <= row.pixels) {
    depthwise_tile<V, Channels, kKernelW, kStride, 4>(row, pixel);
    pixel += 4;
  }
  if (pixel + 2 <= row.pixels) {
    depthwise_tile<V, Channels, kKernelW, kStride, 2>(row, pixel);
    pixel += 2;
  }
  if (pixel < row.pixels) depthwise_pixel<V, Channels>(row, pixel);
}

// Computes the row by tiles, where those of this kernel suit it; false where not.
template <class V, template <class> class Channels, int kKernelW>
bool depthwise_tiled(const F32DepthwiseRow& row) {
  if (row.pixels == 1 || row.kernel_w != kKernelW) return false;
  if (row.x_pixel == row.x_tap_x) {
    depthwise_tiles<V, Channels, kKernelW, 1>(row);
  } else if (row.x_pixel == 2 * row.x_tap_x) {
    depthwise_tiles<V, Channels, kKernelW, 2>(row);
  } else {
    return false;
  }
  return true;
}

template <class V, template <class> class Channels, int... kKernelWidths>
void depthwise_channels(const F32DepthwiseRow& row) {
  if ((depthwise_tiled<V, Channels, kKernelWidths>(row) || ...)) return;
  for (size_t pixel = 0; pixel < row.pixels; ++pixel) depthwise_pixel<V, Channels>(row, pixel);
}

template <class V>
void depthwise_row(const F32DepthwiseRow& row) {
  if (row.lanes == nullptr) {
    depthwise_channels<V, OwnChannels, 1, 3, 5>(row);
  } else if (row.planes == 2) {
    depthwise_channels<V, PairChannels, 1, 3>(row);
  } else {
    depthwise_channels<V, GroupChannels, 3>(row);
  }
}

// The row of the table of kernels for an instruction set.
template <const F32Depthwise& kDepthwise>
constexpr Kernel f32_depthwise_kernel(const char* name, Isa isa) {
  return {
      name,
      Op::k_conv,
      isa,
      [](const OpArgs& args) { return f32_depthwise_accepts(args, kDepthwise); },
      [](const OpArgs& args) { return f32_depthwise_cost(args, kDepthwise); },
      f32_depthwise_prepared_bytes,
      [](const OpArgs& args, void* prepared) { f32_depthwise_prepare(args, kDepthwise, prepared); },
      nullptr,
      f32_depthwise_tasks,
      [](const OpArgs& args, const void* prepared, void*, size_t begin, size_t end) {
        f32_depthwise_run(args, kDepthwise, prepared, begin, end);
      },
      kConvPacks};
}

}  // namespace
}  // namespace pyedge
