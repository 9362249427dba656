// Scalar convolution: the oracle of every other convolution kernel.
#include <cmath>

#include "kernels/common.h"
#include "kernels/conv/conv.h"
#include "kernels/kernel.h"

namespace pyedge {
namespace {

bool accepts_i8(const OpArgs& args) {
  return args.inputs[kConvX].dtype == DType::kI8 && args.inputs[kConvWeight].dtype == DType::kI8;
}

size_t tasks(const OpArgs& args) { return conv_geometry(args).pixels(); }

// Calls accumulate(x, w) with the first channel of the pixel and the index of its weight for each
// tap that lies inside the image, in memory order of the weight.
template <typename T, typename Accumulate>
void for_each_tap(const OpArgs& args, const ConvGeometry& g, size_t pixel, int32_t channel,
                  Accumulate accumulate) {
  const int32_t out_x = static_cast<int32_t>(pixel % static_cast<size_t>(g.out_w));
  const size_t row = pixel / static_cast<size_t>(g.out_w);
  const int32_t out_y = static_cast<int32_t>(row % static_cast<size_t>(g.out_h));
  const size_t image = row / static_cast<size_t>(g.out_h);
  const int32_t first_in = channel / g.group_out_c * g.group_in_c;
  for (int32_t ky = 0; ky < g.kernel_h; ++ky) {
    const int32_t y = out_y * g.stride_h - g.pad_top + ky * g.dilation_h;
    if (y < 0 || y >= g.in_h) continue;
    for (int32_t kx = 0; kx < g.kernel_w; ++kx) {
      const int32_t x = out_x * g.stride_w - g.pad_left + kx * g.dilation_w;
      if (x < 0 || x >= g.in_w) continue;
      const size_t in_row = image * static_cast<size_t>(g.in_h) + static_cast<size_t>(y);
      const size_t in_pixel = in_row * static_cast<size_t>(g.in_w) + static_cast<size_t>(x);
      const size_t tap =
          static_cast<size_t>(ky) * static_cast<size_t>(g.kernel_w) + static_cast<size_t>(kx);
      accumulate(
          args.inputs[kConvX].as<T>() + in_pixel * static_cast<size_t>(g.in_c) + first_in,
          (static_cast<size_t>(channel) * g.taps() + tap) * static_cast<size_t>(g.group_in_c));
    }
  }
}

void run_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const ConvGeometry g = conv_geometry(args);
  const ConvOutput out = conv_output(args);
  const ConvWeights w(args);
  const size_t channels = static_cast<size_t>(g.group_in_c);
  for (size_t pixel = begin; pixel < end; ++pixel) {
    for (int32_t c = 0; c < g.out_c; ++c) {
      const ConvChannel channel = conv_channel(args, c);
      float acc = channel.bias;
      for_each_tap<float>(args, g, pixel, c, [&](const float* x, size_t at_w) {
        for (size_t i = 0; i < channels; ++i) acc = std::fma(x[i], w[at_w + i], acc);
      });
      const size_t at = pixel * static_cast<size_t>(g.out_c) + static_cast<size_t>(c);
      conv_store(args, out, channel, at, acc);
    }
  }
}

void run_i8(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const ConvGeometry g = conv_geometry(args);
  const ConvOutput out = conv_output(args);
  const int8_t* weights = args.inputs[kConvWeight].as<int8_t>();
  const int32_t zero_point = args.inputs[kConvX].quant.zero_point;
  for (size_t pixel = begin; pixel < end; ++pixel) {
    for (int32_t c = 0; c < g.out_c; ++c) {
      const ConvChannel channel = conv_channel(args, c);
      int32_t acc = 0;
      for_each_tap<int8_t>(args, g, pixel, c, [&](const int8_t* x, size_t at_w) {
        const int8_t* w = weights + at_w;
        for (int32_t i = 0; i < g.group_in_c; ++i) acc += (x[i] - zero_point) * w[i];
      });
      const size_t at = pixel * static_cast<size_t>(g.out_c) + static_cast<size_t>(c);
      conv_store(args, out, channel, at,
                 std::fma(static_cast<float>(acc), channel.scale, channel.bias));
    }
  }
}

}  // namespace

extern const Kernel conv_f32_reference =
    plain_kernel("conv_f32_reference", Op::k_conv, Isa::reference, conv_is_f32, tasks, run_f32);
extern const Kernel conv_i8_reference =
    plain_kernel("conv_i8_reference", Op::k_conv, Isa::reference, accepts_i8, tasks, run_i8);

}  // namespace pyedge
