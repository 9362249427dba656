// Scalar transposition: every element of the output finds its source.
#include "kernels/transpose/transpose.h"

namespace pyedge {
namespace {

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

extern const Kernel transpose_f32_reference =
    plain_kernel("transpose_f32_reference", Op::k_transpose, Isa::reference, accepts_transpose_f32,
                 block_tasks, run<float>);
extern const Kernel transpose_i8_reference =
    plain_kernel("transpose_i8_reference", Op::k_transpose, Isa::reference, accepts_transpose_i8,
                 block_tasks, run<int8_t>);

}  // namespace pyedge
