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

// kPixels neighbours at once: a column of the image is loaded once for all that use it. Needs
// taps side by side (x_tap_x is the distance of two pixels of the image).
template <class V, int kKernelW, int kStride, int kPixels>
void depthwise_tile(const F32DepthwiseRow& row, size_t pixel) {
  using Vector = typename V::Vector;
  constexpr int kColumns = (kPixels - 1) * kStride + kKernelW;
  const float* x = row.x + pixel * row.x_pixel;
  for (size_t c = 0; c < row.channels; c += V::kLanes) {
    Vector acc[kPixels];
#pragma GCC unroll 32
    for (int i = 0; i < kPixels; ++i) acc[i] = V::load(row.bias + c);
    for (size_t ky = 0; ky < row.kernel_h; ++ky) {
      const float* x_row = x + ky * row.x_tap_y + c;
      const float* w_row = row.w + ky * row.w_tap_y + c;
      Vector w[kKernelW];
#pragma GCC unroll 32
      for (int kx = 0; kx < kKernelW; ++kx) {
        w[kx] = V::load(w_row + static_cast<size_t>(kx) * row.w_tap_x);
      }
#pragma GCC unroll 32
      for (int column = 0; column < kColumns; ++column) {
        const Vector v = V::load_once(x_row + static_cast<size_t>(column) * row.x_tap_x);
#pragma GCC unroll 32
        for (int i = 0; i < kPixels; ++i) {
          const int kx = column - i * kStride;
          if (kx >= 0 && kx < kKernelW) acc[i] = V::fma(v, w[kx], acc[i]);
        }
      }
    }
    const size_t at = pixel * row.y_pixel + c;
    finish<V>(acc, row.residual ? row.residual + at : nullptr, row.slope ? row.slope + c : nullptr,
              row.activation, row.lo, row.hi, row.y + at, row.y_pixel, row.channels - c);
  }
}

// Any kernel: kVectors of one pixel at once.
template <class V, int kVectors>
void depthwise_vectors(const F32DepthwiseRow& row, size_t pixel, size_t c) {
  using Vector = typename V::Vector;
  const float* x = row.x + pixel * row.x_pixel + c;
  Vector acc[kVectors];
#pragma GCC unroll 32
  for (int n = 0; n < kVectors; ++n) acc[n] = V::load(row.bias + c + n * V::kLanes);
  for (size_t ky = 0; ky < row.kernel_h; ++ky) {
    for (size_t kx = 0; kx < row.kernel_w; ++kx) {
      const float* x_tap = x + ky * row.x_tap_y + kx * row.x_tap_x;
      const float* w_tap = row.w + ky * row.w_tap_y + kx * row.w_tap_x + c;
#pragma GCC unroll 32
      for (int n = 0; n < kVectors; ++n) {
        acc[n] = V::fma(V::load(x_tap + n * V::kLanes), V::load(w_tap + n * V::kLanes), acc[n]);
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

template <class V>
void depthwise_pixel(const F32DepthwiseRow& row, size_t pixel) {
  constexpr size_t kLanes = static_cast<size_t>(V::kLanes);
  size_t c = 0;
  for (; c + 3 * kLanes < row.channels; c += 4 * kLanes) depthwise_vectors<V, 4>(row, pixel, c);
  for (; c < row.channels; c += kLanes) depthwise_vectors<V, 1>(row, pixel, c);
}

template <class V, int kKernelW, int kStride>
void depthwise_tiles(const F32DepthwiseRow& row) {
  size_t pixel = 0;
  for (; pixel + 8 <= row.pixels; pixel += 8) depthwise_tile<V, kKernelW, kStride, 8>(row, pixel);
  if (pixel + 4 <= row.pixels) {
    depthwise_tile<V, kKernelW, kStride, 4>(row, pixel);
    pixel += 4;
  }
  if (pixel + 2 <= row.pixels) {
    depthwise_tile<V, kKernelW, kStride, 2>(row, pixel);
    pixel += 2;
  }
  if (pixel < row.pixels) depthwise_pixel<V>(row, pixel);
}

template <class V>
void depthwise_row(const F32DepthwiseRow& row) {
  const size_t tap = row.x_tap_x;
  if (row.pixels > 1 && row.kernel_w == 3 && row.x_pixel == tap) {
    depthwise_tiles<V, 3, 1>(row);
  } else if (row.pixels > 1 && row.kernel_w == 3 && row.x_pixel == 2 * tap) {
    depthwise_tiles<V, 3, 2>(row);
  } else if (row.pixels > 1 && row.kernel_w == 5 && row.x_pixel == tap) {
    depthwise_tiles<V, 5, 1>(row);
  } else if (row.pixels > 1 && row.kernel_w == 5 && row.x_pixel == 2 * tap) {
    depthwise_tiles<V, 5, 2>(row);
  } else {
    for (size_t pixel = 0; pixel < row.pixels; ++pixel) depthwise_pixel<V>(row, pixel);
  }
}

// The row of the table of kernels for an instruction set. It reads what it multiplies with, so
// it always beats the dense kernel, which multiplies with whole panels.
template <const F32Depthwise& kDepthwise>
constexpr Kernel f32_depthwise_kernel(const char* name, Isa isa) {
  return {name,
          Op::k_conv,
          isa,
          f32_depthwise_accepts,
          [](const OpArgs&) { return 0.5; },
          f32_depthwise_prepared_bytes,
          f32_depthwise_prepare,
          nullptr,
          f32_depthwise_tasks,
          [](const OpArgs& args, const void* prepared, void*, size_t begin, size_t end) {
            f32_depthwise_run(args, kDepthwise, prepared, begin, end);
          },
          kConvPacks};
}

}  // namespace
}  // namespace pyedge
