#include "kernels/concat/concat.h"

namespace pyedge {

bool accepts_concat(const OpArgs& args) {
  const TensorView& y = args.outputs[0];
  const int axis = args.ints[0];
  if (axis < 0 || axis >= y.shape.rank) return false;
  int64_t length = 0;
  for (int i = 0; i < args.input_count; ++i) {
    const TensorView& x = args.inputs[i];
    if (!x.present || x.dtype != y.dtype || x.shape.rank != y.shape.rank) return false;
    Shape expected = y.shape;
    expected[axis] = x.shape[axis];
    if (x.shape != expected) return false;
    length += x.shape[axis];
  }
  return length == y.shape[axis];
}

ConcatGeometry concat_geometry(const OpArgs& args) {
  const Shape& y = args.outputs[0].shape;
  const size_t row_elements = elements_between(y, args.ints[0], y.rank);
  const size_t task_rows = row_elements < kBlock ? kBlock / row_elements : 1;
  return {elements_between(y, 0, args.ints[0]), row_elements, task_rows};
}

size_t concat_tasks(const OpArgs& args) {
  const ConcatGeometry g = concat_geometry(args);
  return (g.outer + g.task_rows - 1) / g.task_rows;
}

}  // namespace pyedge
