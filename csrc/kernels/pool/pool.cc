#include "kernels/pool/pool.h"

namespace pyedge {
namespace {

constexpr int64_t kMaxTaps = int64_t{1} << 23;  // 2^23 * 255 < 2^31

bool accepts(const OpArgs& args, DType dtype) {
  const Shape &x = args.inputs[0].shape, &y = args.outputs[0].shape;
  if (!has_dtypes(args, dtype, dtype) || x.rank != 4 || y.rank != 4) return false;
  if (x[0] != y[0] || x[3] != y[3]) return false;
  const PoolGeometry g = pool_geometry(args);
  if (g.kernel_h < 1 || g.kernel_w < 1 || g.stride_h < 1 || g.stride_w < 1) return false;
  if (g.pad_top < 0 || g.pad_left < 0 || g.pad_bottom < 0 || g.pad_right < 0) return false;
  // Positions stay within int32.
  const int64_t last_y = static_cast<int64_t>(g.out_h) * g.stride_h + g.kernel_h;
  const int64_t last_x = static_cast<int64_t>(g.out_w) * g.stride_w + g.kernel_w;
  const int64_t end_y = static_cast<int64_t>(g.in_h) + g.pad_bottom;
  const int64_t end_x = static_cast<int64_t>(g.in_w) + g.pad_right;
  if (last_y > INT32_MAX || last_x > INT32_MAX || end_y > INT32_MAX || end_x > INT32_MAX) {
    return false;
  }
  const int64_t rows = g.kernel_h < g.in_h ? g.kernel_h : g.in_h;
  const int64_t columns = g.kernel_w < g.in_w ? g.kernel_w : g.in_w;
  return rows * columns <= kMaxTaps;
}

// The taps of a window along one axis: those inside, and as many as the average counts.
struct Extent {
  int32_t begin, taps, counted;
};

Extent extent(int32_t start, int32_t kernel, int32_t length, int32_t pad_end, bool include_pad) {
  const int32_t begin = start > 0 ? start : 0;
  const int32_t stop = start + kernel;
  const int32_t end = stop < length ? stop : length;
  const int32_t taps = end > begin ? end - begin : 0;
  const int32_t padded_end = stop < length + pad_end ? stop : length + pad_end;
  return {begin, taps, include_pad ? padded_end - start : taps};
}

}  // namespace

PoolGeometry pool_geometry(const OpArgs& args) {
  const Shape &x = args.inputs[0].shape, &y = args.outputs[0].shape;
  PoolGeometry g{};
  g.in_h = x[1], g.in_w = x[2], g.channels = x[3];
  g.out_h = y[1], g.out_w = y[2];
  if (args.ints[0] != 0) {
    g.kernel_h = g.in_h, g.kernel_w = g.in_w;
    g.stride_h = g.stride_w = 1;
    return g;
  }
  g.kernel_h = args.ints[1], g.kernel_w = args.ints[2];
  g.stride_h = args.ints[3], g.stride_w = args.ints[4];
  g.pad_top = args.ints[5], g.pad_left = args.ints[6];
  g.pad_bottom = args.ints[7], g.pad_right = args.ints[8];
  g.include_pad = args.op == Op::k_average_pool && args.ints[10] != 0;
  return g;
}

PoolWindow pool_window(const PoolGeometry& g, size_t pixel) {
  const int32_t out_x = static_cast<int32_t>(pixel % static_cast<size_t>(g.out_w));
  const size_t row = pixel / static_cast<size_t>(g.out_w);
  const int32_t out_y = static_cast<int32_t>(row % static_cast<size_t>(g.out_h));
  const size_t image = row / static_cast<size_t>(g.out_h);
  const Extent y =
      extent(out_y * g.stride_h - g.pad_top, g.kernel_h, g.in_h, g.pad_bottom, g.include_pad);
  const Extent x =
      extent(out_x * g.stride_w - g.pad_left, g.kernel_w, g.in_w, g.pad_right, g.include_pad);
  const size_t in_row = image * static_cast<size_t>(g.in_h) + static_cast<size_t>(y.begin);
  const size_t in_pixel = in_row * static_cast<size_t>(g.in_w) + static_cast<size_t>(x.begin);
  const double count = static_cast<double>(y.counted) * x.counted;
  const bool empty = y.taps == 0 || x.taps == 0;
  if (empty) return {0, 0, 0, 1.0};
  return {in_pixel * static_cast<size_t>(g.channels), y.taps, x.taps, count > 1.0 ? count : 1.0};
}

bool accepts_pool_f32(const OpArgs& args) { return accepts(args, DType::kF32); }
bool accepts_pool_i8(const OpArgs& args) { return accepts(args, DType::kI8); }

size_t pool_tasks(const OpArgs& args) {
  const Shape& y = args.outputs[0].shape;
  const size_t channel_blocks = (static_cast<size_t>(y[3]) + kPoolChannels - 1) / kPoolChannels;
  return elements_between(y, 0, 3) * channel_blocks;
}

}  // namespace pyedge
