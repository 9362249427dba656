// Scalar reductions: every output walks the reduced axes by itself.
#include <cmath>

#include "kernels/reduce/reduce.h"

namespace pyedge {
namespace {

// The input seen as two tensors: which element of the kept one, which of the reduced one.
struct ReduceGeometry {
  Shape kept, reduced;
  Strides kept_strides, reduced_strides;
};

ReduceGeometry reduce_geometry(const OpArgs& args) {
  const Shape& x = args.inputs[0].shape;
  const Strides strides = strides_of(x);
  bool is_reduced[kMaxRank] = {};
  for (int i = 1; i < args.int_count; ++i) is_reduced[args.ints[i]] = true;
  ReduceGeometry g{};
  for (int axis = 0; axis < x.rank; ++axis) {
    Shape& shape = is_reduced[axis] ? g.reduced : g.kept;
    Strides& of = is_reduced[axis] ? g.reduced_strides : g.kept_strides;
    of.of[shape.rank] = strides.of[axis];
    shape[shape.rank++] = x[axis];
  }
  return g;
}

bool accepts_axes(const OpArgs& args) {
  const Shape& x = args.inputs[0].shape;
  if (args.int_count < 2) return false;
  for (int i = 1; i < args.int_count; ++i) {
    const int32_t least = i == 1 ? 0 : args.ints[i - 1] + 1;
    if (args.ints[i] < least || args.ints[i] >= x.rank) return false;
  }
  return reduce_geometry(args).kept.elements() == args.outputs[0].shape.elements();
}

size_t tasks(const OpArgs& args) { return args.outputs[0].shape.elements(); }

void run_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const ReduceGeometry g = reduce_geometry(args);
  const size_t count = g.reduced.elements();
  for (size_t output = begin; output < end; ++output) {
    const float* x = args.inputs[0].as<float>() + offset_at(output, g.kept, g.kept_strides);
    double sum = 0.0;
    for (size_t i = 0; i < count; ++i) {
      const double v = x[offset_at(i, g.reduced, g.reduced_strides)];
      sum += args.op == Op::k_reduce_l2 ? v * v : v;
    }
    if (args.op == Op::k_reduce_mean) sum /= static_cast<double>(count);
    if (args.op == Op::k_reduce_l2) sum = std::sqrt(sum);
    args.outputs[0].mutable_as<float>()[output] = static_cast<float>(sum);
  }
}

void run_i8(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const ReduceGeometry g = reduce_geometry(args);
  const size_t count = g.reduced.elements();
  const Rescale rescale =
      make_rescale(args.inputs[0].quant, args.outputs[0].quant,
                   args.op == Op::k_reduce_mean ? static_cast<double>(count) : 1.0);
  for (size_t output = begin; output < end; ++output) {
    const int8_t* x = args.inputs[0].as<int8_t>() + offset_at(output, g.kept, g.kept_strides);
    int64_t sum = 0;
    for (size_t i = 0; i < count; ++i) {
      sum += x[offset_at(i, g.reduced, g.reduced_strides)] - rescale.zero_in;
    }
    args.outputs[0].mutable_as<int8_t>()[output] = rescale(static_cast<float>(sum));
  }
}

}  // namespace

bool accepts_reduce_f32(const OpArgs& args) {
  return has_dtypes(args, DType::kF32, DType::kF32) && accepts_axes(args);
}

bool accepts_reduce_i8(const OpArgs& args) {
  return has_dtypes(args, DType::kI8, DType::kI8) && accepts_axes(args);
}

extern const Kernel reduce_mean_f32_reference =
    plain_kernel("reduce_mean_f32_reference", Op::k_reduce_mean, Isa::reference, accepts_reduce_f32,
                 tasks, run_f32);
extern const Kernel reduce_mean_i8_reference =
    plain_kernel("reduce_mean_i8_reference", Op::k_reduce_mean, Isa::reference, accepts_reduce_i8,
                 tasks, run_i8);
extern const Kernel reduce_sum_f32_reference =
    plain_kernel("reduce_sum_f32_reference", Op::k_reduce_sum, Isa::reference, accepts_reduce_f32,
                 tasks, run_f32);
extern const Kernel reduce_sum_i8_reference = plain_kernel(
    "reduce_sum_i8_reference", Op::k_reduce_sum, Isa::reference, accepts_reduce_i8, tasks, run_i8);
extern const Kernel reduce_l2_f32_reference = plain_kernel(
    "reduce_l2_f32_reference", Op::k_reduce_l2, Isa::reference, accepts_reduce_f32, tasks, run_f32);

}  // namespace pyedge
