// Every `step`-th index of one axis, from `start` on, backwards where the step is negative.
// A negative start counts from the end. The quantization stays.
#include <cstring>

#include "graph/shapes.h"
#include "kernels/common.h"

namespace pyedge {
namespace {

struct SliceGeometry {
  size_t outer, in_length, out_length;  // outer: product of the dimensions before the axis
  int64_t start, step;
  size_t run;  // bytes of one index of the axis
};

SliceGeometry slice_geometry(const OpArgs& args) {
  const TensorView &x = args.inputs[0], &y = args.outputs[0];
  const int axis = args.ints[0];
  return {elements_between(y.shape, 0, axis),
          static_cast<size_t>(x.shape[axis]),
          static_cast<size_t>(y.shape[axis]),
          slice_range(x.shape[axis], args.ints[1], args.ints[2], args.ints[3]).first,
          args.ints[3],
          elements_between(x.shape, axis + 1, x.shape.rank) * dtype_bytes(x.dtype)};
}

bool accepts(const OpArgs& args) {
  const TensorView &x = args.inputs[0], &y = args.outputs[0];
  const int axis = args.ints[0];
  if (x.dtype != y.dtype || !same_quant(x, y) || args.ints[3] == 0) return false;
  if (axis < 0 || axis >= x.shape.rank) return false;
  Shape expected = x.shape;
  expected[axis] = slice_range(x.shape[axis], args.ints[1], args.ints[2], args.ints[3]).count;
  return y.shape == expected;
}

size_t tasks(const OpArgs& args) { return slice_geometry(args).outer; }

void run(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const SliceGeometry g = slice_geometry(args);
  for (size_t outer = begin; outer < end; ++outer) {
    const char* x = args.inputs[0].as<char>() + outer * g.in_length * g.run;
    char* y = args.outputs[0].mutable_as<char>() + outer * g.out_length * g.run;
    if (g.step == 1) {
      std::memcpy(y, x + static_cast<size_t>(g.start) * g.run, g.out_length * g.run);
      continue;
    }
    for (size_t i = 0; i < g.out_length; ++i) {
      const size_t index = static_cast<size_t>(g.start + static_cast<int64_t>(i) * g.step);
      std::memcpy(y + i * g.run, x + index * g.run, g.run);
    }
  }
}

}  // namespace

extern const Kernel slice_any_reference =
    plain_kernel("slice_any_reference", Op::k_slice, Isa::reference, accepts, tasks, run);

}  // namespace pyedge
