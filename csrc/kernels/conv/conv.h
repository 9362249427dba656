// Convolution and fully connected: geometry, and the arithmetic after the accumulator.
//
// INT8: y = requantize(prelu(fma(float(acc), scale[c], bias[c]) + residual)), where
//   acc    = sum (q_x - zero_point_x) * q_w, exact in int32 (validation bounds the taps),
//   scale  = s_x * s_w[c] / s_y and bias = b[c] / s_y, so y counts output steps; with an f32
//            output s_y is 1,
//   residual is added as fma(float(q_r - zero_point_r), s_r / s_y, y),
//   prelu(y) = y < 0 ? y * slope[c] : y, which needs no rescaling: it is homogeneous. In its place
//            may stand an activation of activation.h, which counts output steps as well.
// Padding has the value zero, that is the zero point.
//
// f32: acc starts at bias[c] (0 without) and takes fma(x, w, acc) tap by tap, channel by channel
//   in memory order of the weight; then + residual, prelu or activation, clamp. A padded tap may be
//   skipped. Winograd kernels sum differently, within the tolerance that f32/winograd.h states. A
//   denormal weight counts as zero: it would slow some CPUs down a hundredfold.
#pragma once

#include <cmath>

#include "kernels/conv/activation.h"
#include "kernels/kernel.h"
#include "kernels/numerics.h"

namespace pyedge {

enum ConvSlot { kConvX, kConvWeight, kConvBias, kConvWeightScale, kConvSlope, kConvResidual };

// Of a kernel that has packed all that conv_channel reads.
constexpr uint32_t kConvPacks =
    1u << kConvWeight | 1u << kConvBias | 1u << kConvWeightScale | 1u << kConvSlope;

struct ConvGeometry {
  int32_t batch, in_h, in_w, in_c;
  int32_t out_h, out_w, out_c;
  int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
  int32_t groups, group_in_c, group_out_c;

  bool depthwise() const { return group_in_c == 1 && groups > 1; }
  size_t taps() const { return static_cast<size_t>(kernel_h) * static_cast<size_t>(kernel_w); }
  size_t pixels() const {
    return static_cast<size_t>(batch) * static_cast<size_t>(out_h) * static_cast<size_t>(out_w);
  }
};

// A fully connected layer is a 1x1 convolution of a 1x1 image with the rows as batch.
static inline ConvGeometry conv_geometry(const OpArgs& args) {
  ConvGeometry g{};
  const Shape& x = args.inputs[kConvX].shape;
  const Shape& w = args.inputs[kConvWeight].shape;
  const Shape& y = args.outputs[0].shape;
  if (args.op == Op::k_fully_connected) {
    g.in_h = g.in_w = g.out_h = g.out_w = 1;
    g.kernel_h = g.kernel_w = g.stride_h = g.stride_w = g.dilation_h = g.dilation_w = 1;
    g.groups = 1;
    g.in_c = g.group_in_c = w[1];
    g.out_c = g.group_out_c = w[0];
    g.batch = 1;
    for (int axis = 0; axis + 1 < x.rank; ++axis) g.batch *= x[axis];
    return g;
  }
  g.batch = x[0], g.in_h = x[1], g.in_w = x[2], g.in_c = x[3];
  g.out_h = y[1], g.out_w = y[2], g.out_c = y[3];
  g.kernel_h = w[1], g.kernel_w = w[2];
  g.stride_h = args.ints[0], g.stride_w = args.ints[1];
  g.dilation_h = args.ints[2], g.dilation_w = args.ints[3];
  g.pad_top = args.ints[4], g.pad_left = args.ints[5];
  g.groups = args.ints[8];
  g.group_in_c = g.in_c / g.groups, g.group_out_c = g.out_c / g.groups;
  return g;
}

static inline bool conv_is_f32(const OpArgs& args) {
  const DType weight = args.inputs[kConvWeight].dtype;
  return args.inputs[kConvX].dtype == DType::kF32 &&
         (weight == DType::kF32 || weight == DType::kF16) && args.outputs[0].dtype == DType::kF32;
}

// The weights of an f32 layer as they are multiplied with.
class ConvWeights {
 public:
  explicit ConvWeights(const OpArgs& args)
      : data_(args.inputs[kConvWeight].data),
        half_(args.inputs[kConvWeight].dtype == DType::kF16) {}

  float operator[](size_t i) const {
    return half_ ? half_to_float(static_cast<const uint16_t*>(data_)[i])
                 : flush_denormal(static_cast<const float*>(data_)[i]);
  }

 private:
  const void* data_;
  bool half_;
};

// What one output channel needs after the accumulator.
struct ConvChannel {
  float scale, bias, slope;
};

static inline ConvChannel conv_channel(const OpArgs& args, int32_t channel) {
  const TensorView& bias = args.inputs[kConvBias];
  const bool has_slope = args.input_count > kConvSlope && args.inputs[kConvSlope].present;
  const size_t c = static_cast<size_t>(channel);
  ConvChannel result{1.0f, 0.0f, 1.0f};
  const double b = args.input_count > kConvBias && bias.present ? bias.as<float>()[c] : 0.0;
  if (args.inputs[kConvWeight].dtype == DType::kI8) {
    const bool quantized = args.outputs[0].dtype == DType::kI8;
    const double s_y = quantized ? args.outputs[0].quant.scale : 1.0;
    const double s_w = args.inputs[kConvWeightScale].as<float>()[c];
    result.scale = static_cast<float>(args.inputs[kConvX].quant.scale * s_w / s_y);
    result.bias = static_cast<float>(b / s_y);
  } else {
    result.bias = static_cast<float>(b);
  }
  if (has_slope) result.slope = args.inputs[kConvSlope].as<float>()[c];
  return result;
}

// Which integer attribute the activation is.
static constexpr size_t conv_activation_at(Op op) { return op == Op::k_conv ? 9 : 0; }

static inline ConvActivation conv_activation(const OpArgs& args) {
  const size_t at = conv_activation_at(args.op);
  if (args.op == Op::k_conv_transpose || static_cast<size_t>(args.int_count) <= at) return {};
  constexpr double kLog2E = 1.4426950408889634;
  const Activation kind = static_cast<Activation>(args.ints[at]);
  const bool soft = kind == Activation::kSigmoid || kind == Activation::kSwish;
  const double s_y = args.outputs[0].dtype == DType::kI8 ? args.outputs[0].quant.scale : 1.0;
  return {kind, static_cast<float>(soft ? -kLog2E * s_y : s_y / 6.0),
          static_cast<float>(1.0 / s_y)};
}

// What a whole layer needs after the accumulator. Without a slope every channel's is 1.
struct ConvOutput {
  float lo, hi;
  int32_t zero_point;
  bool has_slope;
  ConvActivation activation;
  const void* residual;  // null without; of the output's dtype
  float residual_scale;
  int32_t residual_zero_point;
};

static inline ConvOutput conv_output(const OpArgs& args) {
  const TensorView& y = args.outputs[0];
  ConvOutput out{};
  out.lo = args.floats[0], out.hi = args.floats[1];
  out.has_slope = args.input_count > kConvSlope && args.inputs[kConvSlope].present;
  out.activation = conv_activation(args);
  if (y.dtype == DType::kI8) {
    out.zero_point = y.quant.zero_point;
    out.lo = quantized_lower(args.floats[0], y.quant.scale, out.zero_point);
    out.hi = quantized_upper(args.floats[1], y.quant.scale, out.zero_point);
  }
  if (args.input_count > kConvResidual && args.inputs[kConvResidual].present) {
    const TensorView& r = args.inputs[kConvResidual];
    out.residual = r.data;
    out.residual_scale =
        y.dtype == DType::kI8
            ? static_cast<float>(static_cast<double>(r.quant.scale) / y.quant.scale)
            : 1.0f;
    out.residual_zero_point = r.quant.zero_point;
  }
  return out;
}

// Finishes the element `at` of the output, for the references: y is the f32 accumulator, or the
// scaled INT8 one.
static inline void conv_store(const OpArgs& args, const ConvOutput& out, const ConvChannel& channel,
                              size_t at, float y) {
  const TensorView& output = args.outputs[0];
  if (out.residual && output.dtype == DType::kI8) {
    const int32_t r = static_cast<const int8_t*>(out.residual)[at] - out.residual_zero_point;
    y = std::fma(static_cast<float>(r), out.residual_scale, y);
  } else if (out.residual) {
    y += static_cast<const float*>(out.residual)[at];
  }
  if (out.has_slope) y = y < 0.0f ? y * channel.slope : y;
  if (out.activation.kind != Activation::kNone) activate<F32Scalar>(out.activation, &y, 1);
  if (output.dtype == DType::kI8) {
    output.mutable_as<int8_t>()[at] = requantize(y, out.lo, out.hi, out.zero_point);
  } else {
    output.mutable_as<float>()[at] = clamp(y, out.lo, out.hi);
  }
}

}  // namespace pyedge
