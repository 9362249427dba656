#include "kernels/conv/i8/layout.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "kernels/conv/conv.h"

namespace pyedge {
namespace {

const int8_t* weights_of(const OpArgs& args, size_t channel, size_t k) {
  return args.inputs[kConvWeight].as<int8_t>() + channel * k;
}

}  // namespace

bool i8_accepts(const OpArgs& args) {
  return args.inputs[kConvX].dtype == DType::kI8 && args.inputs[kConvWeight].dtype == DType::kI8;
}

size_t i8_block(const I8Layout& layout) { return kI8BlockVectors * layout.lanes; }

bool i8_prefers_narrow(size_t channels, const I8Layout& wide, const I8Layout& narrow) {
  const size_t wide_block = i8_block(wide), narrow_block = i8_block(narrow);
  return (channels + narrow_block - 1) / narrow_block * narrow_block <
         (channels + wide_block - 1) / wide_block * wide_block;
}

size_t i8_channel(const I8Layout& layout, size_t position) {
  const size_t vector = position / layout.lanes, lane = position % layout.lanes;
  return lane / 4 * 16 + vector * 4 + lane % 4;
}

size_t i8_channels_bytes(const I8Layout& layout) {
  return i8_block(layout) * (sizeof(int32_t) + 3 * sizeof(float));
}

I8Channels i8_channels(const I8Layout& layout, const void* prepared) {
  const size_t block = i8_block(layout);
  const int32_t* initial = static_cast<const int32_t*>(prepared);
  const float* scale = reinterpret_cast<const float*>(initial + block);
  return {initial, scale, scale + block, scale + 2 * block};
}

void i8_prepare_channels(const OpArgs& args, const I8Layout& layout, size_t first, size_t count,
                         size_t k, void* prepared) {
  const size_t block = i8_block(layout);
  int32_t* initial = static_cast<int32_t*>(prepared);
  float* scale = reinterpret_cast<float*>(initial + block);
  std::memset(prepared, 0, i8_channels_bytes(layout));
  for (size_t position = 0; position < block; ++position) {
    const size_t index = i8_channel(layout, position);
    if (index >= count) continue;
    const ConvChannel channel = conv_channel(args, static_cast<int32_t>(first + index));
    scale[position] = channel.scale;
    scale[block + position] = channel.bias;
    scale[2 * block + position] = channel.slope;
    if (layout.packing == I8Packing::centred) continue;
    const int8_t* w = weights_of(args, first + index, k);
    int32_t sum = 0;
    for (size_t i = 0; i < k; ++i) sum += w[i];
    const int32_t added = layout.packing == I8Packing::plus_128 ? 128 : 0;
    initial[position] = -(added + args.inputs[kConvX].quant.zero_point) * sum;
  }
}

I8Header i8_header(const OpArgs& args, size_t k) {
  const size_t channels = static_cast<size_t>(args.inputs[kConvWeight].shape[0]);
  const double residual = 255.0 * conv_output(args).residual_scale;
  double bound = 0.0;
  bool finite = true, max_slope = true;
  for (size_t c = 0; c < channels; ++c) {
    const ConvChannel channel = conv_channel(args, static_cast<int32_t>(c));
    const int8_t* w = weights_of(args, c, k);
    double sum = 0.0;
    for (size_t i = 0; i < k; ++i) sum += std::abs(w[i]);
    const double slope = std::fabs(static_cast<double>(channel.slope));
    const double y = (255.0 * sum * std::fabs(static_cast<double>(channel.scale)) +
                      std::fabs(static_cast<double>(channel.bias)) + residual) *
                     (slope > 1.0 ? slope : 1.0);
    finite = finite && std::isfinite(y) && std::isfinite(slope);
    max_slope = max_slope && channel.slope <= 1.0f;
    bound = y > bound ? y : bound;
  }
  // A little more covers the rounding of the values, and that of the bound.
  return {finite && bound < 1e30 ? static_cast<float>(1.001 * bound) : HUGE_VALF, max_slope};
}

I8Finish i8_finish(const OpArgs& args, const I8Layout& layout, const I8Header& header) {
  const ConvOutput out = conv_output(args);
  const TensorView& y = args.outputs[0];
  I8Finish finish{};
  finish.y = y.data;
  finish.residual = out.residual;
  finish.f32 = y.dtype == DType::kF32;
  finish.has_slope = out.has_slope;
  finish.activation = out.activation;
  finish.slope_is_max = header.max_slope && std::isfinite(header.bound);
  finish.lo = out.lo, finish.hi = out.hi;
  finish.zero_point = out.zero_point;
  finish.residual_scale = out.residual_scale;
  finish.residual_zero_point = out.residual_zero_point;
  finish.y_stride = static_cast<size_t>(conv_geometry(args).out_c);
  // Rounding is monotone, so clamping to the range of i8 may follow it: saturation does that.
  finish.clamps = !(header.bound < layout.exact) ||
                  out.lo > static_cast<float>(-128 - out.zero_point) ||
                  out.hi < static_cast<float>(127 - out.zero_point);
  return finish;
}

}  // namespace pyedge
