// Depthwise f32 convolution and that of groups of few channels: the driver shared by all
// instruction sets.
//
// Lanes are output channels. Of a depthwise layer the input channels stand in the same lanes. In a
// group of more, every lane takes one channel of its group after the other, which it finds within
// one vector of the image: that of plane i begins at channel i of the first lane's group. So every
// output is the reference's own chain of fused multiply-adds, where zeros in the place of other
// groups' weights would spread their infinities and NaNs.
#pragma once

#include "kernels/conv/activation.h"
#include "kernels/kernel.h"

namespace pyedge {

// Neighbouring pixels of an output row whose taps all lie inside the image once the rows and
// columns of the kernel that do not are cut off.
struct F32DepthwiseRow {
  const float* x;        // the first tap of the first pixel
  const float* w;        // [.., planes, channels padded] from the first tap
  const int32_t* lanes;  // [channels padded] the lane where a channel finds its group's; or null
  const float* bias;
  const float* slope;     // or null
  const float* residual;  // laid out as y, or null
  float* y;
  size_t pixels, kernel_h, kernel_w, channels;
  size_t planes, group_channels;  // input and output channels of a group
  size_t x_tap_y, x_tap_x;        // floats from a tap to the one below and to the right
  size_t w_tap_y, w_tap_x, w_plane;
  size_t x_pixel, y_pixel;  // floats from an output pixel to the next
  ConvActivation activation;
  float lo, hi;
};

struct F32Depthwise {
  int32_t lanes;
  double cost;  // of a multiply-add, as in dense.h
  void (*row)(const F32DepthwiseRow&);
};

bool f32_depthwise_accepts(const OpArgs& args, const F32Depthwise& isa);
double f32_depthwise_cost(const OpArgs& args, const F32Depthwise& isa);
size_t f32_depthwise_prepared_bytes(const OpArgs& args);
void f32_depthwise_prepare(const OpArgs& args, const F32Depthwise& isa, void* prepared);
size_t f32_depthwise_tasks(const OpArgs& args);
void f32_depthwise_run(const OpArgs& args, const F32Depthwise& isa, const void* prepared,
                       size_t begin, size_t end);

}  // namespace pyedge
