#include "kernels/resize/resize.h"

namespace pyedge {
namespace {

constexpr int32_t kMaxLength = 1 << 24;  // of an axis: indices are exact in float

// Where the output index lies in the input.
float coordinate(const ResizeAxis& axis, int32_t out_index) {
  const float x = static_cast<float>(out_index);
  switch (axis.coordinates) {
    case kAsymmetric:
      return x / axis.scale;
    case kAlignCorners:
      return axis.out == 1 ? 0.0f
                           : x * static_cast<float>(axis.in - 1) / static_cast<float>(axis.out - 1);
    case kPytorchHalfPixel:
      return axis.out == 1 ? 0.0f : (x + 0.5f) / axis.scale - 0.5f;
    default:
      return (x + 0.5f) / axis.scale - 0.5f;
  }
}

}  // namespace

bool accepts_resize(const OpArgs& args) {
  const TensorView &x = args.inputs[0], &y = args.outputs[0];
  if (x.dtype != y.dtype || x.shape.rank != 4 || y.shape.rank != 4) return false;
  if (x.shape[0] != y.shape[0] || x.shape[3] != y.shape[3]) return false;
  if (args.ints[0] < kNearest || args.ints[0] > kLinear || args.ints[1] < kHalfPixel ||
      args.ints[1] > kPytorchHalfPixel || args.ints[2] < kFloor ||
      args.ints[2] > kRoundPreferCeil) {
    return false;
  }
  for (int axis = 1; axis <= 2; ++axis) {
    if (x.shape[axis] > kMaxLength || y.shape[axis] > kMaxLength) return false;
    if (!(resize_axis(args, axis).scale > 0.0f)) return false;
  }
  return true;
}

size_t resize_tasks(const OpArgs& args) { return elements_between(args.outputs[0].shape, 0, 2); }

ResizeAxis resize_axis(const OpArgs& args, int axis) {
  const Shape &x = args.inputs[0].shape, &y = args.outputs[0].shape;
  const bool by_size = args.ints[3] != 0 || args.ints[4] != 0;
  const float scale =
      by_size ? static_cast<float>(y[axis]) / static_cast<float>(x[axis]) : args.floats[axis - 1];
  return {x[axis], y[axis], scale, args.ints[1], args.ints[2]};
}

int32_t nearest_index(const ResizeAxis& axis, int32_t out_index) {
  const float x = coordinate(axis, out_index);
  const float below = std::floor(x), fraction = x - below;
  float index = below;
  if (axis.rounding == kCeil) index = std::ceil(x);
  if (axis.rounding == kRoundPreferFloor) index = fraction > 0.5f ? below + 1.0f : below;
  if (axis.rounding == kRoundPreferCeil) index = fraction >= 0.5f ? below + 1.0f : below;
  return static_cast<int32_t>(clamp(index, 0.0f, static_cast<float>(axis.in - 1)));
}

LinearIndex linear_index(const ResizeAxis& axis, int32_t out_index) {
  const float x = clamp(coordinate(axis, out_index), 0.0f, static_cast<float>(axis.in - 1));
  const int32_t first = static_cast<int32_t>(x);
  return {first, first + 1 < axis.in ? first + 1 : first, x - static_cast<float>(first)};
}

}  // namespace pyedge
