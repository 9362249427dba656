#include "kernels/binary/binary.h"

namespace pyedge {
namespace {

bool broadcasts(const Shape& in, const Shape& out) {
  const int missing = out.rank - in.rank;
  if (missing < 0) return false;
  for (int axis = 0; axis < in.rank; ++axis) {
    if (in[axis] != 1 && in[axis] != out[axis + missing]) return false;
  }
  return true;
}

bool fits(const OpArgs& args) {
  const Shape& y = args.outputs[0].shape;
  return broadcasts(args.inputs[0].shape, y) && broadcasts(args.inputs[1].shape, y);
}

bool all_are(const OpArgs& args, DType dtype) {
  return args.inputs[0].dtype == dtype && args.inputs[1].dtype == dtype &&
         args.outputs[0].dtype == dtype;
}

}  // namespace

bool accepts_binary_f32(const OpArgs& args) { return all_are(args, DType::kF32) && fits(args); }
bool accepts_binary_i8(const OpArgs& args) { return all_are(args, DType::kI8) && fits(args); }
bool accepts_binary_mixed(const OpArgs& args) {
  return !all_are(args, DType::kF32) && !all_are(args, DType::kI8) && fits(args);
}

BinaryI8 binary_i8(const OpArgs& args) {
  const Quant a = args.inputs[0].quant, b = args.inputs[1].quant, y = args.outputs[0].quant;
  const double s_a = a.scale, s_b = b.scale, s_y = y.scale;
  BinaryI8 p{};
  p.lo = quantized_lower(args.floats[0], y.scale, y.zero_point);
  p.hi = quantized_upper(args.floats[1], y.scale, y.zero_point);
  p.zero_a = a.zero_point, p.zero_b = b.zero_point, p.zero_y = y.zero_point;
  if (args.op == Op::k_mul) {
    p.scale_a = static_cast<float>(s_a * s_b / s_y);
  } else if (args.op == Op::k_div) {
    p.scale_a = static_cast<float>(s_a / s_b / s_y);
  } else {
    p.scale_a = static_cast<float>(s_a / s_y);
    p.scale_b = static_cast<float>(s_b / s_y);
  }
  return p;
}

Strides broadcast_strides(const Shape& in, const Shape& out) {
  const Strides dense = strides_of(in);
  Strides strides{};
  for (int axis = 0; axis < in.rank; ++axis) {
    strides.of[axis + out.rank - in.rank] = in[axis] == 1 ? 0 : dense.of[axis];
  }
  return strides;
}

BinaryPlan binary_plan(const OpArgs& args) {
  const Shape& y = args.outputs[0].shape;
  const Strides a = broadcast_strides(args.inputs[0].shape, y);
  const Strides b = broadcast_strides(args.inputs[1].shape, y);
  // Collected from the innermost axis outwards, then turned round.
  BinaryPlan inverse{};
  for (int axis = y.rank - 1; axis >= 0; --axis) {
    const size_t length = static_cast<size_t>(y[axis]);
    if (length == 1) continue;
    const int last = inverse.rank - 1;
    if (last >= 0 && a.of[axis] == inverse.stride_a[last] * inverse.dims[last] &&
        b.of[axis] == inverse.stride_b[last] * inverse.dims[last]) {
      inverse.dims[last] *= length;
      continue;
    }
    inverse.dims[inverse.rank] = length;
    inverse.stride_a[inverse.rank] = a.of[axis];
    inverse.stride_b[inverse.rank] = b.of[axis];
    ++inverse.rank;
  }
  if (inverse.rank == 0) return {1, {1}, {1}, {1}};
  BinaryPlan plan{};
  plan.rank = inverse.rank;
  for (int i = 0; i < plan.rank; ++i) {
    plan.dims[i] = inverse.dims[plan.rank - 1 - i];
    plan.stride_a[i] = inverse.stride_a[plan.rank - 1 - i];
    plan.stride_b[i] = inverse.stride_b[plan.rank - 1 - i];
  }
  return plan;
}

}  // namespace pyedge
