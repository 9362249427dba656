// What the kernels of more than one operation share: blocks of elements as tasks, strides, and
// the change from one quantization to another.
//
// The functions are in an anonymous namespace, as all code that files of several instruction sets
// include: the linker must not merge what is compiled for a newer one into the others.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernel.h"
#include "kernels/numerics.h"

namespace pyedge {

// Row-major: how far apart in memory the neighbours along each axis are.
struct Strides {
  size_t of[kMaxRank];
};

namespace {

// A kernel that prepares nothing and needs no scratch.
constexpr Kernel plain_kernel(const char* name, Op op, Isa isa, bool (*accepts)(const OpArgs&),
                              size_t (*tasks)(const OpArgs&),
                              void (*run)(const OpArgs&, const void*, void*, size_t, size_t),
                              uint32_t in_place = 0) {
  return {name, op, isa, accepts, nullptr, nullptr, nullptr, nullptr, tasks, run, 0, in_place};
}

inline bool has_dtypes(const OpArgs& args, DType in, DType out) {
  return args.inputs[0].dtype == in && args.outputs[0].dtype == out;
}

inline bool same_quant(const TensorView& a, const TensorView& b) {
  return a.dtype != DType::kI8 ||
         (a.quant.scale == b.quant.scale && a.quant.zero_point == b.quant.zero_point);
}

// A task of an elementwise kernel is a block of this many elements.
constexpr size_t kBlock = 16384;

struct Span {
  size_t begin, end;
};

inline size_t block_tasks(const OpArgs& args) {
  return (args.outputs[0].shape.elements() + kBlock - 1) / kBlock;
}

inline Span block_span(const OpArgs& args, size_t begin, size_t end) {
  const size_t elements = args.outputs[0].shape.elements();
  return {begin * kBlock, end * kBlock < elements ? end * kBlock : elements};
}

// The product of the dimensions from axis `first` up to, not including, `last`.
inline size_t elements_between(const Shape& shape, int first, int last) {
  size_t n = 1;
  for (int axis = first; axis < last; ++axis) n *= static_cast<size_t>(shape[axis]);
  return n;
}

inline Strides strides_of(const Shape& shape) {
  Strides strides{};
  size_t step = 1;
  for (int axis = shape.rank - 1; axis >= 0; --axis) {
    strides.of[axis] = step;
    step *= static_cast<size_t>(shape[axis]);
  }
  return strides;
}

// Where the element of `shape` with this row-major index lies in a tensor with these strides.
inline size_t offset_at(size_t index, const Shape& shape, const Strides& strides) {
  size_t offset = 0;
  for (int axis = shape.rank - 1; axis >= 0; --axis) {
    const size_t length = static_cast<size_t>(shape[axis]);
    offset += index % length * strides.of[axis];
    index /= length;
  }
  return offset;
}

// f32 operations along one axis (the first integer attribute): a task is a line along it.
inline bool accepts_lines(const OpArgs& args) {
  const Shape& x = args.inputs[0].shape;
  return has_dtypes(args, DType::kF32, DType::kF32) && x == args.outputs[0].shape &&
         args.ints[0] >= 0 && args.ints[0] < x.rank && x[args.ints[0]] > 0;
}

inline size_t line_length(const OpArgs& args) {
  return static_cast<size_t>(args.inputs[0].shape[args.ints[0]]);
}

inline size_t line_tasks(const OpArgs& args) {
  return args.inputs[0].shape.elements() / line_length(args);
}

// From one quantization to another: requantize(float(q - z_x) * float(s_x / s_y)).
struct Rescale {
  float ratio, lo, hi;
  int32_t zero_in, zero_out;

  int8_t operator()(float steps) const { return requantize(steps * ratio, lo, hi, zero_out); }
  int8_t operator()(int8_t q) const { return (*this)(static_cast<float>(q - zero_in)); }
};

inline Rescale make_rescale(const Quant& x, const Quant& y, double divisor = 1.0) {
  return {static_cast<float>(static_cast<double>(x.scale) / (y.scale * divisor)),
          static_cast<float>(-128 - y.zero_point), static_cast<float>(127 - y.zero_point),
          x.zero_point, y.zero_point};
}

}  // namespace
}  // namespace pyedge
