// Scalar transposition: every element of the output finds its source.
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

template <typename T>
void run(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const Shape& shape = args.outputs[0].shape;
  const Strides in = strides_of(args.inputs[0].shape);
  Strides strides{};
  for (int i = 0; i < shape.rank; ++i) strides.of[i] = in.of[args.ints[i]];
  const Span span = block_span(args, begin, end);
  for (size_t i = span.begin; i < span.end; ++i) {
    args.outputs[0].mutable_as<T>()[i] = args.inputs[0].as<T>()[offset_at(i, shape, strides)];
  }
}

}  // namespace

bool accepts_transpose_f32(const OpArgs& args) { return accepts(args, DType::kF32); }
bool accepts_transpose_i8(const OpArgs& args) { return accepts(args, DType::kI8); }

extern const Kernel transpose_f32_reference =
    plain_kernel("transpose_f32_reference", Op::k_transpose, Isa::reference, accepts_transpose_f32,
                 block_tasks, run<float>);
extern const Kernel transpose_i8_reference =
    plain_kernel("transpose_i8_reference", Op::k_transpose, Isa::reference, accepts_transpose_i8,
                 block_tasks, run<int8_t>);

}  // namespace pyedge
