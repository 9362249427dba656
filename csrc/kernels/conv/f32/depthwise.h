// Depthwise f32 convolution, one output channel for each input channel: the driver shared by all
// instruction sets. Lanes are channels.
#pragma once

#include "kernels/conv/activation.h"
#include "kernels/kernel.h"

namespace pyedge {

// Neighbouring pixels of an output row whose taps all lie inside the image once the rows and
// columns of the kernel that do not are cut off.
struct F32DepthwiseRow {
  const float* x;  // the first tap of the first pixel
  const float* w;  // [.., channels padded] from the first tap
  const float* bias;
  const float* slope;     // or null
  const float* residual;  // laid out as y, or null
  float* y;
  size_t pixels, kernel_h, kernel_w, channels;
  size_t x_tap_y, x_tap_x;  // floats from a tap to the one below and to the right
  size_t w_tap_y, w_tap_x;
  size_t x_pixel, y_pixel;  // floats from an output pixel to the next
  ConvActivation activation;
  float lo, hi;
};

struct F32Depthwise {
  void (*row)(const F32DepthwiseRow&);
};

bool f32_depthwise_accepts(const OpArgs& args);
size_t f32_depthwise_prepared_bytes(const OpArgs& args);
void f32_depthwise_prepare(const OpArgs& args, void* prepared);
size_t f32_depthwise_tasks(const OpArgs& args);
void f32_depthwise_run(const OpArgs& args, const F32Depthwise& isa, const void* prepared,
                       size_t begin, size_t end);

}  // namespace pyedge
