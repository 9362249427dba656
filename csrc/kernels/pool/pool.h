// Max and average pooling of NHWC images.
//
// max: the greatest value of the window, from -inf (f32) or -128 (i8); padding and NaN are
//   ignored. i8 requantizes where the quantizations differ: requantize(float(q - z_x) * ratio)
//   with ratio = float(s_x / s_y).
// average: f32 sums the window in double, row by row, and divides by the count, which has the
//   padded taps too with count_include_pad. i8: the sum of q - z_x is exact in int32, because a
//   window has at most 2^23 taps; requantize(float(sum) * float(s_x / (s_y * count))).
//   A window without a tap gives zero.
#pragma once

#include "kernels/common.h"

namespace pyedge {

struct PoolGeometry {
  int32_t in_h, in_w, channels, out_h, out_w;
  int32_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, pad_bottom, pad_right;
  bool include_pad;
};
PoolGeometry pool_geometry(const OpArgs& args);

// The taps of one output pixel.
struct PoolWindow {
  size_t first;  // element: first channel of the first tap
  int32_t rows, columns;
  double count;  // by which an average divides, at least 1
};
PoolWindow pool_window(const PoolGeometry& geometry, size_t pixel);

bool accepts_pool_f32(const OpArgs& args);
bool accepts_pool_i8(const OpArgs& args);

// A task is a pixel and a block of channels.
constexpr size_t kPoolChannels = 128;
size_t pool_tasks(const OpArgs& args);

}  // namespace pyedge
