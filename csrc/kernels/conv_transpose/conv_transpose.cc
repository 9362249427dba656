#include "kernels/conv_transpose/conv_transpose.h"

#include <cstring>

namespace pyedge {
namespace {

constexpr size_t kVector = 16;  // channels that a row of weights is filled up to

template <typename Packed, typename Weights>
void pack(const ConvTransposePacking& p, const Weights& weight, Packed* packed) {
  for (size_t channel = 0; channel < p.groups * p.out_c; ++channel) {
    Packed* column = packed + channel / p.out_c * p.group_weights() + channel % p.out_c;
    for (size_t row = 0; row < p.taps * p.in_c; ++row) {
      column[row * p.lanes] = weight[channel * p.taps * p.in_c + row];
    }
  }
}

}  // namespace

ConvTransposePacking::ConvTransposePacking(const OpArgs& args) {
  const Shape& w = args.inputs[kConvWeight].shape;
  groups = static_cast<size_t>(args.ints[kGroups]);
  taps = static_cast<size_t>(w[1]) * static_cast<size_t>(w[2]);
  in_c = static_cast<size_t>(w[3]);
  out_c = static_cast<size_t>(w[0]) / groups;
  lanes = (out_c + kVector - 1) / kVector * kVector;
}

bool accepts_conv_transpose_f32(const OpArgs& args) {
  return args.inputs[kConvX].dtype == DType::kF32 &&
         args.inputs[kConvWeight].dtype == DType::kF32 && args.outputs[0].dtype == DType::kF32;
}

bool accepts_conv_transpose_i8(const OpArgs& args) {
  return args.inputs[kConvX].dtype == DType::kI8 && args.inputs[kConvWeight].dtype == DType::kI8;
}

size_t conv_transpose_tasks(const OpArgs& args) {
  return elements_between(args.outputs[0].shape, 0, 2);
}

size_t conv_transpose_prepared_bytes(const OpArgs& args) {
  const ConvTransposePacking p(args);
  const bool f32 = args.inputs[kConvWeight].dtype == DType::kF32;
  return 3 * p.groups * p.lanes * sizeof(float) +
         p.groups * p.group_weights() * (f32 ? sizeof(float) : sizeof(int16_t));
}

void conv_transpose_prepare(const OpArgs& args, void* prepared) {
  const ConvTransposePacking p(args);
  const TensorView& weight = args.inputs[kConvWeight];
  const size_t stride = p.groups * p.lanes;
  float* channels = static_cast<float*>(prepared);
  std::memset(prepared, 0, conv_transpose_prepared_bytes(args));
  for (size_t c = 0; c < p.groups * p.out_c; ++c) {
    const ConvChannel channel = conv_channel(args, static_cast<int32_t>(c));
    float* at = channels + c / p.out_c * p.lanes + c % p.out_c;
    at[0] = channel.scale, at[stride] = channel.bias, at[2 * stride] = channel.slope;
  }
  if (weight.dtype == DType::kF32) {
    pack(p, ConvWeights(args), channels + 3 * stride);
  } else {
    pack(p, weight.as<int8_t>(), reinterpret_cast<int16_t*>(channels + 3 * stride));
  }
}

}  // namespace pyedge
