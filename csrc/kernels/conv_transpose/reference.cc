// Scalar transposed convolution.
#include <cmath>

#include "kernels/conv_transpose/conv_transpose.h"

namespace pyedge {
namespace {

// Calls accumulate(x, w) with the first channel of the pixel and of the weight for each tap that
// reaches the output, in memory order of the weight.
template <typename T, typename Accumulate>
void for_each_tap(const OpArgs& args, size_t row, int32_t out_x, int32_t channel,
                  Accumulate accumulate) {
  const Shape &x = args.inputs[kConvX].shape, &w = args.inputs[kConvWeight].shape;
  const Shape& y = args.outputs[0].shape;
  const int32_t* ints = args.ints;
  const int32_t in_h = x[1], in_w = x[2], in_c = x[3], kernel_h = w[1], kernel_w = w[2];
  const int32_t group_in_c = w[3], group_out_c = y[3] / ints[kGroups];
  const int32_t out_y = static_cast<int32_t>(row % static_cast<size_t>(y[1]));
  const size_t image = row / static_cast<size_t>(y[1]);
  const size_t first_in = static_cast<size_t>(channel / group_out_c * group_in_c);
  const T* taps = args.inputs[kConvWeight].as<T>() + static_cast<size_t>(channel) *
                                                         static_cast<size_t>(kernel_h * kernel_w) *
                                                         static_cast<size_t>(group_in_c);
  for (int32_t ky = 0; ky < kernel_h; ++ky) {
    const int32_t in_y =
        conv_transpose_source(out_y, ints[kPadTop], ky, ints[kDilationH], ints[kStrideH], in_h);
    if (in_y < 0) continue;
    for (int32_t kx = 0; kx < kernel_w; ++kx) {
      const int32_t in_x =
          conv_transpose_source(out_x, ints[kPadLeft], kx, ints[kDilationW], ints[kStrideW], in_w);
      if (in_x < 0) continue;
      const size_t in_row = image * static_cast<size_t>(in_h) + static_cast<size_t>(in_y);
      const size_t in_pixel = in_row * static_cast<size_t>(in_w) + static_cast<size_t>(in_x);
      accumulate(args.inputs[kConvX].as<T>() + in_pixel * static_cast<size_t>(in_c) + first_in,
                 taps + static_cast<size_t>(ky * kernel_w + kx) * static_cast<size_t>(group_in_c));
    }
  }
}

void run_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const Shape& y = args.outputs[0].shape;
  const int32_t group_in_c = args.inputs[kConvWeight].shape[3];
  const ConvOutput out = conv_output(args);
  size_t at = begin * static_cast<size_t>(y[2]) * static_cast<size_t>(y[3]);
  for (size_t row = begin; row < end; ++row) {
    for (int32_t out_x = 0; out_x < y[2]; ++out_x) {
      for (int32_t c = 0; c < y[3]; ++c, ++at) {
        const ConvChannel channel = conv_channel(args, c);
        float acc = channel.bias;
        for_each_tap<float>(args, row, out_x, c, [&](const float* x, const float* w) {
          for (int32_t i = 0; i < group_in_c; ++i) acc = std::fma(x[i], flush_denormal(w[i]), acc);
        });
        conv_store(args, out, channel, at, acc);
      }
    }
  }
}

void run_i8(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const Shape& y = args.outputs[0].shape;
  const int32_t group_in_c = args.inputs[kConvWeight].shape[3];
  const int32_t zero_point = args.inputs[kConvX].quant.zero_point;
  const ConvOutput out = conv_output(args);
  size_t at = begin * static_cast<size_t>(y[2]) * static_cast<size_t>(y[3]);
  for (size_t row = begin; row < end; ++row) {
    for (int32_t out_x = 0; out_x < y[2]; ++out_x) {
      for (int32_t c = 0; c < y[3]; ++c, ++at) {
        const ConvChannel channel = conv_channel(args, c);
        int32_t acc = 0;
        for_each_tap<int8_t>(args, row, out_x, c, [&](const int8_t* x, const int8_t* w) {
          for (int32_t i = 0; i < group_in_c; ++i) acc += (x[i] - zero_point) * w[i];
        });
        conv_store(args, out, channel, at,
                   std::fma(static_cast<float>(acc), channel.scale, channel.bias));
      }
    }
  }
}

}  // namespace

extern const Kernel conv_transpose_f32_reference =
    plain_kernel("conv_transpose_f32_reference", Op::k_conv_transpose, Isa::reference,
                 accepts_conv_transpose_f32, conv_transpose_tasks, run_f32);
extern const Kernel conv_transpose_i8_reference =
    plain_kernel("conv_transpose_i8_reference", Op::k_conv_transpose, Isa::reference,
                 accepts_conv_transpose_i8, conv_transpose_tasks, run_i8);

}  // namespace pyedge
