// Arithmetic of two tensors as loops that the compiler vectorizes; a file of an instruction set
// includes this and lists PYEDGE_BINARY_KERNELS(isa).
#pragma once

#include <type_traits>

#include "kernels/binary/binary.h"

namespace pyedge {
namespace {

// Calls use(a, b, y, n) with the offsets of each run of n elements along the innermost axis.
template <typename Use>
inline void for_each_run(const BinaryPlan& plan, const Span& span, Use use) {
  const int inner = plan.rank - 1;
  size_t index[kMaxRank] = {}, a = 0, b = 0, rest = span.begin;
  for (int axis = inner; axis >= 0; --axis) {
    index[axis] = rest % plan.dims[axis];
    rest /= plan.dims[axis];
    a += index[axis] * plan.stride_a[axis];
    b += index[axis] * plan.stride_b[axis];
  }
  for (size_t y = span.begin; y < span.end;) {
    const size_t row = plan.dims[inner] - index[inner], left = span.end - y;
    const size_t n = row < left ? row : left;
    use(a, b, y, n);
    y += n;
    a -= index[inner] * plan.stride_a[inner];
    b -= index[inner] * plan.stride_b[inner];
    index[inner] = 0;
    for (int axis = inner - 1; axis >= 0; --axis) {
      a += plan.stride_a[axis];
      b += plan.stride_b[axis];
      if (++index[axis] < plan.dims[axis]) break;
      a -= plan.stride_a[axis] * plan.dims[axis];
      b -= plan.stride_b[axis] * plan.dims[axis];
      index[axis] = 0;
    }
  }
}

// Of a narrow second operand, as one value for each of three channels, several copies are laid out
// in a row, so that the innermost loop is long.
constexpr size_t kPattern = 512;

template <typename T>
inline const T* repeat_narrow(const T* second, T* pattern, BinaryPlan* plan) {
  const size_t rows = plan->dims[0], channels = plan->dims[1];
  const bool repeats = plan->rank == 2 && plan->stride_a[0] == channels && plan->stride_a[1] == 1 &&
                       plan->stride_b[0] == 0 && plan->stride_b[1] == 1;
  if (!repeats || channels > kPattern / 16 || rows < kPattern) return second;
  const size_t length = kPattern / channels * channels;
  for (size_t i = 0; i < length; ++i) pattern[i] = second[i % channels];
  plan->dims[0] = rows * channels / length + 1;
  plan->dims[1] = plan->stride_a[0] = length;
  return pattern;
}

// f(a, b, y) stores a result at y.
template <typename A, typename B, typename Y, typename F>
inline void run_binary(const OpArgs& args, size_t begin, size_t end, F f) {
  BinaryPlan plan = binary_plan(args);
  B pattern[kPattern];
  const A* first = args.inputs[0].as<A>();
  const B* second = repeat_narrow(args.inputs[1].as<B>(), pattern, &plan);
  Y* out = args.outputs[0].mutable_as<Y>();
  const bool a_stays = plan.stride_a[plan.rank - 1] == 0;
  const bool b_stays = plan.stride_b[plan.rank - 1] == 0;
  for_each_run(plan, block_span(args, begin, end), [=](size_t a, size_t b, size_t y, size_t n) {
    if (b_stays) {
      const B value = second[b];
      for (size_t i = 0; i < n; ++i) f(first[a + i], value, out + y + i);
    } else if (a_stays) {
      const A value = first[a];
      for (size_t i = 0; i < n; ++i) f(value, second[b + i], out + y + i);
    } else {
      for (size_t i = 0; i < n; ++i) f(first[a + i], second[b + i], out + y + i);
    }
  });
}

template <Op op>
void run_binary_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const float lo = args.floats[0], hi = args.floats[1];
  run_binary<float, float, float>(
      args, begin, end, [=](float a, float b, float* y) { *y = clamp(combine<op>(a, b), lo, hi); });
}

template <Op op>
void run_binary_i8(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const BinaryI8 parameters = binary_i8(args);
  run_binary<int8_t, int8_t, int8_t>(
      args, begin, end, [=](int8_t a, int8_t b, int8_t* y) { *y = combine<op>(a, b, parameters); });
}

template <Op op>
void run_binary_mixed(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const MixedOperand a_of = mixed_operand(args.inputs[0]), b_of = mixed_operand(args.inputs[1]);
  const MixedResult result = mixed_result(args);
  with_mixed_types(args, [&](auto* a_type, auto* b_type, auto* y_type) {
    using A = std::decay_t<decltype(*a_type)>;
    using B = std::decay_t<decltype(*b_type)>;
    using Y = std::decay_t<decltype(*y_type)>;
    run_binary<A, B, Y>(args, begin, end,
                        [=](A a, B b, Y* y) { result.store(combine<op>(a_of(a), b_of(b)), y); });
  });
}

}  // namespace
}  // namespace pyedge

#define PYEDGE_BINARY_KERNEL(op, dtype, isa)                                              \
  extern const Kernel op##_##dtype##_##isa =                                              \
      plain_kernel(#op "_" #dtype "_" #isa, Op::k_##op, Isa::isa, accepts_binary_##dtype, \
                   block_tasks, run_binary_##dtype<Op::k_##op>, kBinaryInPlace);

#define PYEDGE_BINARY_KERNELS(isa)      \
  PYEDGE_BINARY_KERNEL(add, f32, isa)   \
  PYEDGE_BINARY_KERNEL(add, i8, isa)    \
  PYEDGE_BINARY_KERNEL(sub, f32, isa)   \
  PYEDGE_BINARY_KERNEL(sub, i8, isa)    \
  PYEDGE_BINARY_KERNEL(mul, f32, isa)   \
  PYEDGE_BINARY_KERNEL(mul, i8, isa)    \
  PYEDGE_BINARY_KERNEL(div, f32, isa)   \
  PYEDGE_BINARY_KERNEL(div, i8, isa)    \
  PYEDGE_BINARY_KERNEL(add, mixed, isa) \
  PYEDGE_BINARY_KERNEL(sub, mixed, isa) \
  PYEDGE_BINARY_KERNEL(mul, mixed, isa)
