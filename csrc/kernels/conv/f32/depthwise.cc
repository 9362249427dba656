#include "kernels/conv/f32/depthwise.h"

#include <cstring>

#include "kernels/conv/conv.h"

namespace pyedge {
namespace {

// Prepared: bias, slope and taps, each with room for whole vectors of any instruction set.
size_t padded_channels(const ConvGeometry& g) {
  constexpr size_t kFloats = kAlignment / sizeof(float);
  return (static_cast<size_t>(g.out_c) + kFloats - 1) / kFloats * kFloats;
}

// Taps [begin, end) of a row or column of the kernel that lie inside the image.
struct Inside {
  int32_t begin, end;
};

Inside inside(int32_t first, int32_t dilation, int32_t taps, int32_t size) {
  Inside r{0, taps};
  while (r.begin < taps && first + r.begin * dilation < 0) ++r.begin;
  while (r.end > r.begin && first + (r.end - 1) * dilation >= size) --r.end;
  return r;
}

// Neighbouring output columns that see the same columns of the kernel.
struct Columns {
  int32_t count;
  Inside kx;
  int32_t in_x;  // under the first tap
};

Columns columns_from(const ConvGeometry& g, int32_t out_x) {
  const int32_t first_x = out_x * g.stride_w - g.pad_left;
  const Inside kx = inside(first_x, g.dilation_w, g.kernel_w, g.in_w);
  int32_t count = 1;
  if (kx.begin == 0 && kx.end == g.kernel_w) {
    const int32_t last_x = first_x + (g.kernel_w - 1) * g.dilation_w;
    while (out_x + count < g.out_w && last_x + count * g.stride_w < g.in_w) {
      ++count;
    }
  }
  return {count, kx, first_x + kx.begin * g.dilation_w};
}

}  // namespace

bool f32_depthwise_accepts(const OpArgs& args) {
  if (args.op != Op::k_conv || !conv_is_f32(args)) return false;
  const ConvGeometry g = conv_geometry(args);
  return g.depthwise() && g.group_out_c == 1;
}

size_t f32_depthwise_prepared_bytes(const OpArgs& args) {
  const ConvGeometry g = conv_geometry(args);
  return (2 + g.taps()) * padded_channels(g) * sizeof(float);
}

void f32_depthwise_prepare(const OpArgs& args, void* prepared) {
  const ConvGeometry g = conv_geometry(args);
  const size_t stride = padded_channels(g), taps = g.taps();
  const ConvWeights w(args);
  std::memset(prepared, 0, (2 + taps) * stride * sizeof(float));
  for (size_t c = 0; c < static_cast<size_t>(g.out_c); ++c) {
    float* column = static_cast<float*>(prepared) + c;
    const ConvChannel channel = conv_channel(args, static_cast<int32_t>(c));
    column[0] = channel.bias + 0.0f;  // -0 becomes +0
    column[stride] = channel.slope;
    for (size_t tap = 0; tap < taps; ++tap) column[(2 + tap) * stride] = w[c * taps + tap];
  }
}

// A task is a row of the output.
size_t f32_depthwise_tasks(const OpArgs& args) {
  const ConvGeometry g = conv_geometry(args);
  return static_cast<size_t>(g.batch) * static_cast<size_t>(g.out_h);
}

void f32_depthwise_run(const OpArgs& args, const F32Depthwise& isa, const void* prepared,
                       size_t begin, size_t end) {
  const ConvGeometry g = conv_geometry(args);
  const ConvOutput out = conv_output(args);
  const size_t c = static_cast<size_t>(g.out_c), in_w = static_cast<size_t>(g.in_w);
  const size_t padded = padded_channels(g);
  const float* bias = static_cast<const float*>(prepared);
  F32DepthwiseRow row{};
  row.bias = bias;
  row.slope = out.has_slope ? bias + padded : nullptr;
  row.channels = c;
  row.x_tap_y = static_cast<size_t>(g.dilation_h) * in_w * c;
  row.x_tap_x = static_cast<size_t>(g.dilation_w) * c;
  row.w_tap_y = static_cast<size_t>(g.kernel_w) * padded, row.w_tap_x = padded;
  row.x_pixel = static_cast<size_t>(g.stride_w) * c, row.y_pixel = c;
  row.activation = out.activation;
  row.lo = out.lo, row.hi = out.hi;
  for (size_t out_row = begin; out_row < end; ++out_row) {
    const size_t image = out_row / static_cast<size_t>(g.out_h);
    const int32_t out_y = static_cast<int32_t>(out_row % static_cast<size_t>(g.out_h));
    const int32_t first_y = out_y * g.stride_h - g.pad_top;
    const Inside ky = inside(first_y, g.dilation_h, g.kernel_h, g.in_h);
    const int32_t in_y = first_y + ky.begin * g.dilation_h;
    row.kernel_h = static_cast<size_t>(ky.end - ky.begin);
    Columns columns{};
    for (int32_t out_x = 0; out_x < g.out_w; out_x += columns.count) {
      columns = columns_from(g, out_x);
      row.pixels = static_cast<size_t>(columns.count);
      row.kernel_w = static_cast<size_t>(columns.kx.end - columns.kx.begin);
      row.x = args.inputs[kConvX].as<float>();
      if (row.kernel_h > 0 && row.kernel_w > 0) {
        const size_t in_row = image * static_cast<size_t>(g.in_h) + static_cast<size_t>(in_y);
        row.x += (in_row * in_w + static_cast<size_t>(columns.in_x)) * c;
      }
      row.w = bias + (2 + static_cast<size_t>(ky.begin * g.kernel_w + columns.kx.begin)) * padded;
      const size_t at = (out_row * static_cast<size_t>(g.out_w) + static_cast<size_t>(out_x)) * c;
      row.y = args.outputs[0].mutable_as<float>() + at;
      row.residual = out.residual ? static_cast<const float*>(out.residual) + at : nullptr;
      isa.row(row);
    }
  }
}

}  // namespace pyedge
