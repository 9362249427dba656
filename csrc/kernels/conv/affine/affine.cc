#include "kernels/conv/affine/affine.h"

namespace pyedge {
namespace {

constexpr size_t kLongLoop = 512;  // elements

}  // namespace

bool affine_accepts(const OpArgs& args) {
  if (args.op != Op::k_conv || !has_dtypes(args, DType::kI8, DType::kI8) ||
      args.inputs[kConvWeight].dtype != DType::kI8) {
    return false;
  }
  const ConvGeometry g = conv_geometry(args);
  const bool residual = args.input_count > kConvResidual && args.inputs[kConvResidual].present;
  const bool activation = conv_activation(args).kind != Activation::kNone;
  return !residual && !activation && g.depthwise() && g.taps() == 1 && g.group_out_c == 1 &&
         g.stride_h == 1 && g.stride_w == 1 && g.out_h == g.in_h && g.out_w == g.in_w &&
         g.pad_top == 0 && g.pad_left == 0;
}

double affine_cost(const OpArgs& args) {
  constexpr size_t kFull = 32;
  const size_t channels = static_cast<size_t>(args.inputs[kConvWeight].shape[0]);
  const size_t lanes = (channels + kFull - 1) / kFull * kFull;
  return 10 * channels > 7 * lanes ? 0.2 : affine_cost_alone(args);
}

double affine_cost_alone(const OpArgs&) { return 0.05; }

size_t affine_period(const OpArgs& args) {
  const size_t channels = static_cast<size_t>(args.inputs[kConvWeight].shape[0]);
  return (kLongLoop + channels - 1) / channels * channels;
}

size_t affine_prepared_bytes(const OpArgs& args) { return affine_period(args) * 4 * sizeof(float); }

void affine_prepare(const OpArgs& args, void* prepared) {
  const size_t period = affine_period(args);
  const size_t channels = static_cast<size_t>(args.inputs[kConvWeight].shape[0]);
  float* weight = static_cast<float*>(prepared);
  for (size_t i = 0; i < period; ++i) {
    const size_t c = i % channels;
    const ConvChannel channel = conv_channel(args, static_cast<int32_t>(c));
    weight[i] = args.inputs[kConvWeight].as<int8_t>()[c];
    weight[period + i] = channel.scale;
    weight[2 * period + i] = channel.bias;
    weight[3 * period + i] = channel.slope;
  }
}

}  // namespace pyedge
