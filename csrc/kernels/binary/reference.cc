// Scalar arithmetic of two tensors: every element finds its operands by itself.
#include <type_traits>

#include "kernels/binary/binary.h"

namespace pyedge {
namespace {

struct Operands {
  Strides a, b;
};

Operands operands(const OpArgs& args) {
  const Shape& y = args.outputs[0].shape;
  return {broadcast_strides(args.inputs[0].shape, y), broadcast_strides(args.inputs[1].shape, y)};
}

template <Op op>
void run_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const Operands strides = operands(args);
  const Shape& shape = args.outputs[0].shape;
  const Span span = block_span(args, begin, end);
  for (size_t i = span.begin; i < span.end; ++i) {
    const float a = args.inputs[0].as<float>()[offset_at(i, shape, strides.a)];
    const float b = args.inputs[1].as<float>()[offset_at(i, shape, strides.b)];
    args.outputs[0].mutable_as<float>()[i] =
        clamp(combine<op>(a, b), args.floats[0], args.floats[1]);
  }
}

template <Op op>
void run_i8(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const Operands strides = operands(args);
  const BinaryI8 parameters = binary_i8(args);
  const Shape& shape = args.outputs[0].shape;
  const Span span = block_span(args, begin, end);
  for (size_t i = span.begin; i < span.end; ++i) {
    const int8_t a = args.inputs[0].as<int8_t>()[offset_at(i, shape, strides.a)];
    const int8_t b = args.inputs[1].as<int8_t>()[offset_at(i, shape, strides.b)];
    args.outputs[0].mutable_as<int8_t>()[i] = combine<op>(a, b, parameters);
  }
}

template <Op op>
void run_mixed(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const Operands strides = operands(args);
  const Shape& shape = args.outputs[0].shape;
  const MixedOperand a_of = mixed_operand(args.inputs[0]), b_of = mixed_operand(args.inputs[1]);
  const MixedResult result = mixed_result(args);
  const Span span = block_span(args, begin, end);
  with_mixed_types(args, [&](auto* a, auto* b, auto* y) {
    a = args.inputs[0].as<std::decay_t<decltype(*a)>>();
    b = args.inputs[1].as<std::decay_t<decltype(*b)>>();
    auto* out = args.outputs[0].mutable_as<std::decay_t<decltype(*y)>>();
    for (size_t i = span.begin; i < span.end; ++i) {
      const float x = a_of(a[offset_at(i, shape, strides.a)]);
      const float z = b_of(b[offset_at(i, shape, strides.b)]);
      result.store(combine<op>(x, z), out + i);
    }
  });
}

}  // namespace

#define BINARY(op)                                                                       \
  extern const Kernel op##_f32_reference =                                               \
      plain_kernel(#op "_f32_reference", Op::k_##op, Isa::reference, accepts_binary_f32, \
                   block_tasks, run_f32<Op::k_##op>, kBinaryInPlace);                    \
  extern const Kernel op##_i8_reference =                                                \
      plain_kernel(#op "_i8_reference", Op::k_##op, Isa::reference, accepts_binary_i8,   \
                   block_tasks, run_i8<Op::k_##op>, kBinaryInPlace);
BINARY(add)
BINARY(sub)
BINARY(mul)
BINARY(div)
#undef BINARY

#define MIXED(op)                                                                            \
  extern const Kernel op##_mixed_reference =                                                 \
      plain_kernel(#op "_mixed_reference", Op::k_##op, Isa::reference, accepts_binary_mixed, \
                   block_tasks, run_mixed<Op::k_##op>);
MIXED(add)
MIXED(sub)
MIXED(mul)
#undef MIXED

}  // namespace pyedge
