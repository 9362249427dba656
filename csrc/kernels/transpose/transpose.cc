#include "kernels/transpose/transpose.h"

namespace pyedge {
namespace {

bool accepts(const OpArgs& args, DType dtype) {
  const TensorView &x = args.inputs[0], &y = args.outputs[0];
  if (x.dtype != dtype || y.dtype != dtype || !same_quant(x, y)) return false;
  if (x.shape.rank != y.shape.rank || args.int_count != x.shape.rank) return false;
  bool seen[kMaxRank] = {};
  for (int i = 0; i < y.shape.rank; ++i) {
    const int axis = args.ints[i];
    if (axis < 0 || axis >= x.shape.rank || seen[axis] || y.shape[i] != x.shape[axis]) return false;
    seen[axis] = true;
  }
  return true;
}

// The axes of the output that are longer than 1, neighbours that stay neighbours as one.
struct Axes {
  int rank;
  size_t dims[kMaxRank], x_strides[kMaxRank], y_strides[kMaxRank];
};

Axes merged_axes(const OpArgs& args) {
  const Shape& shape = args.outputs[0].shape;
  const Strides in = strides_of(args.inputs[0].shape);
  Axes axes{};
  for (int axis = 0; axis < shape.rank; ++axis) {
    const size_t length = static_cast<size_t>(shape[axis]);
    const size_t stride = in.of[args.ints[axis]];
    if (length == 1) continue;
    const int last = axes.rank - 1;
    if (last >= 0 && axes.x_strides[last] == stride * length) {
      axes.dims[last] *= length;
      axes.x_strides[last] = stride;
    } else {
      axes.dims[axes.rank] = length;
      axes.x_strides[axes.rank++] = stride;
    }
  }
  size_t step = 1;
  for (int axis = axes.rank - 1; axis >= 0; --axis) {
    axes.y_strides[axis] = step;
    step *= axes.dims[axis];
  }
  return axes;
}

constexpr size_t kNarrow = 16;  // an axis up to here is not cut
constexpr size_t kTile = 128;

size_t tiles(size_t length, size_t tile) { return (length + tile - 1) / tile; }

}  // namespace

bool accepts_transpose_f32(const OpArgs& args) { return accepts(args, DType::kF32); }
bool accepts_transpose_i8(const OpArgs& args) { return accepts(args, DType::kI8); }

TransposePlan transpose_plan(const OpArgs& args) {
  const Axes axes = merged_axes(args);
  TransposePlan plan{};
  plan.u = plan.i = plan.y_stride_u = plan.x_stride_i = 1;
  for (int axis = 0; axis < axes.rank; ++axis) {
    if (axis == axes.rank - 1) {
      plan.i = axes.dims[axis];
      plan.x_stride_i = axes.x_strides[axis];
    } else if (axes.x_strides[axis] == 1) {
      plan.u = axes.dims[axis];
      plan.y_stride_u = axes.y_strides[axis];
    } else {
      plan.dims[plan.rank] = axes.dims[axis];
      plan.x_strides[plan.rank] = axes.x_strides[axis];
      plan.y_strides[plan.rank++] = axes.y_strides[axis];
    }
  }
  plan.tile_u = plan.i <= kNarrow ? kBlock / plan.i : plan.u <= kNarrow ? plan.u : kTile;
  plan.tile_i = plan.i <= kNarrow ? plan.i : plan.u <= kNarrow ? kBlock / plan.u : kTile;
  return plan;
}

TransposeTile transpose_tile(const TransposePlan& plan, size_t task) {
  const size_t columns = tiles(plan.i, plan.tile_i), rows = tiles(plan.u, plan.tile_u);
  const size_t i = task % columns * plan.tile_i, u = task / columns % rows * plan.tile_u;
  TransposeTile tile{u + i * plan.x_stride_i, u * plan.y_stride_u + i, plan.u - u, plan.i - i};
  if (tile.u > plan.tile_u) tile.u = plan.tile_u;
  if (tile.i > plan.tile_i) tile.i = plan.tile_i;
  size_t outer = task / columns / rows;
  for (int axis = plan.rank - 1; axis >= 0; --axis) {
    tile.x += outer % plan.dims[axis] * plan.x_strides[axis];
    tile.y += outer % plan.dims[axis] * plan.y_strides[axis];
    outer /= plan.dims[axis];
  }
  return tile;
}

size_t transpose_tasks(const OpArgs& args) {
  const TransposePlan plan = transpose_plan(args);
  size_t count = tiles(plan.i, plan.tile_i) * tiles(plan.u, plan.tile_u);
  for (int axis = 0; axis < plan.rank; ++axis) count *= plan.dims[axis];
  return count;
}

}  // namespace pyedge
