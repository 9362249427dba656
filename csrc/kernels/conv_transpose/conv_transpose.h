// Transposed convolution: y[o] gathers x[i] * w[tap] for every tap with
// i * stride + tap * dilation - pad = o, in memory order of the weight. The arithmetic around it
// is that of conv.h.
#pragma once

#include "kernels/common.h"
#include "kernels/conv/conv.h"

namespace pyedge {

enum ConvTransposeAttribute {
  kStrideH,
  kStrideW,
  kDilationH,
  kDilationW,
  kPadTop,
  kPadLeft,
  kGroups = 10
};

bool accepts_conv_transpose_f32(const OpArgs& args);
bool accepts_conv_transpose_i8(const OpArgs& args);
size_t conv_transpose_tasks(const OpArgs& args);  // output rows

// Weights with the output channels side by side: [group][tap][in][lanes], f32, or i16 for i8.
// Before them lie scale, bias and slope, [group][lanes] each.
struct ConvTransposePacking {
  size_t groups, taps, in_c, out_c;  // channels of a group
  size_t lanes;                      // out_c, filled up with zeros

  explicit ConvTransposePacking(const OpArgs& args);
  size_t group_weights() const { return taps * in_c * lanes; }
};

size_t conv_transpose_prepared_bytes(const OpArgs& args);
void conv_transpose_prepare(const OpArgs& args, void* prepared);

namespace {

// The place in the image that a tap takes to an output coordinate, or -1.
inline int32_t conv_transpose_source(int32_t out, int32_t pad, int32_t tap, int32_t dilation,
                                     int32_t stride, int32_t size) {
  const int32_t at = out + pad - tap * dilation;
  return at >= 0 && at % stride == 0 && at / stride < size ? at / stride : -1;
}

}  // namespace
}  // namespace pyedge
