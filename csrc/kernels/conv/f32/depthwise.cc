#include "kernels/conv/f32/depthwise.h"

#include <algorithm>
#include <cstring>

#include "kernels/conv/conv.h"

namespace pyedge {
namespace {

// Prepared: lanes, bias, slope and the planes of the taps, each with room for whole vectors of any
// instruction set.
constexpr size_t kArrays = 3;
size_t padded_channels(const ConvGeometry& g) {
  constexpr size_t kFloats = kAlignment / sizeof(float);
  return (static_cast<size_t>(g.out_c) + kFloats - 1) / kFloats * kFloats;
}

size_t planes(const ConvGeometry& g) { return static_cast<size_t>(g.group_in_c); }

// In a vector of the image that begins at the first channel of the first lane's group: the lane of
// the first channel of this output channel's group.
int32_t group_lane(const ConvGeometry& g, int32_t channel, int32_t lanes) {
  const int32_t first = channel / lanes * lanes;
  return (channel / g.group_out_c - first / g.group_out_c) * g.group_in_c;
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

// Where a group fills a vector, all of its lanes would take the same channel: that is dense.h.
bool f32_depthwise_accepts(const OpArgs& args, const F32Depthwise& isa) {
  if (args.op != Op::k_conv || !conv_is_f32(args)) return false;
  const ConvGeometry g = conv_geometry(args);
  if (g.groups == 1 || g.group_out_c >= isa.lanes) return false;
  for (int32_t first = 0; first < g.out_c; first += isa.lanes) {
    const int32_t last = std::min(first + isa.lanes, g.out_c) - 1;
    if (group_lane(g, last, isa.lanes) >= isa.lanes) return false;
  }
  return true;
}

// Of a multiply-add, against full vectors of the dense kernel, as measured: as long where tiles of
// pixels share weights in registers, longer where they load them for each column, and longest a
// pixel at a time. A depthwise layer would leave all lanes of that kernel but one empty.
double f32_depthwise_cost(const OpArgs& args, const F32Depthwise& isa) {
  const ConvGeometry g = conv_geometry(args);
  double longer = 1.9;
  if (g.kernel_w == 3) longer = g.stride_w == 1 ? 1.4 : 1.6;
  if (g.group_in_c <= 2 && g.kernel_w == 3) longer = 1.0;
  if (g.group_in_c == 2 && g.kernel_w == 1) longer = 1.0;
  return longer * isa.cost;
}

size_t f32_depthwise_prepared_bytes(const OpArgs& args) {
  const ConvGeometry g = conv_geometry(args);
  return (kArrays + g.taps() * planes(g)) * padded_channels(g) * sizeof(float);
}

void f32_depthwise_prepare(const OpArgs& args, const F32Depthwise& isa, void* prepared) {
  const ConvGeometry g = conv_geometry(args);
  const size_t stride = padded_channels(g), weights = g.taps() * planes(g);  // of a channel
  const ConvWeights w(args);
  std::memset(prepared, 0, f32_depthwise_prepared_bytes(args));
  for (size_t c = 0; c < static_cast<size_t>(g.out_c); ++c) {
    const int32_t channel = static_cast<int32_t>(c);
    static_cast<int32_t*>(prepared)[c] = group_lane(g, channel, isa.lanes);
    float* column = static_cast<float*>(prepared) + c;
    const ConvChannel after = conv_channel(args, channel);
    column[stride] = after.bias + 0.0f;  // -0 becomes +0
    column[2 * stride] = after.slope;
    for (size_t i = 0; i < weights; ++i) column[(kArrays + i) * stride] = w[c * weights + i];
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
  const size_t in_c = static_cast<size_t>(g.in_c), in_w = static_cast<size_t>(g.in_w);
  const size_t out_c = static_cast<size_t>(g.out_c), padded = padded_channels(g);
  const float* bias = static_cast<const float*>(prepared) + padded;
  F32DepthwiseRow row{};
  const bool own_lanes = g.group_in_c == 1 && g.group_out_c == 1;
  row.lanes = own_lanes ? nullptr : static_cast<const int32_t*>(prepared);
  row.bias = bias;
  row.slope = out.has_slope ? bias + padded : nullptr;
  row.channels = out_c;
  row.planes = planes(g), row.group_channels = static_cast<size_t>(g.group_out_c);
  row.x_tap_y = static_cast<size_t>(g.dilation_h) * in_w * in_c;
  row.x_tap_x = static_cast<size_t>(g.dilation_w) * in_c;
  row.w_plane = padded, row.w_tap_x = row.planes * padded;
  row.w_tap_y = static_cast<size_t>(g.kernel_w) * row.w_tap_x;
  row.x_pixel = static_cast<size_t>(g.stride_w) * in_c, row.y_pixel = out_c;
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
        row.x += (in_row * in_w + static_cast<size_t>(columns.in_x)) * in_c;
      }
      const size_t first_tap = static_cast<size_t>(ky.begin * g.kernel_w + columns.kx.begin);
      row.w = bias + 2 * padded + first_tap * row.w_tap_x;
      const size_t pixel = out_row * static_cast<size_t>(g.out_w) + static_cast<size_t>(out_x);
      const size_t at = pixel * out_c;
      row.y = args.outputs[0].mutable_as<float>() + at;
      row.residual = out.residual ? static_cast<const float*>(out.residual) + at : nullptr;
      isa.row(row);
    }
  }
}

}  // namespace pyedge
