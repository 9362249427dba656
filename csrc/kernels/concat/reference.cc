// Joins tensors along an axis. i8 inputs whose quantization differs from the output's are
// requantized: requantize(float(q - z_x) * float(s_x / s_y)).
#include <cstring>

#include "kernels/common.h"

namespace pyedge {
namespace {

bool accepts(const OpArgs& args) {
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

// The output is `outer` rows of one run of elements from each input; a task is a block of rows.
size_t row_elements(const OpArgs& args) {
  const Shape& y = args.outputs[0].shape;
  return elements_between(y, args.ints[0], y.rank);
}

size_t outer_rows(const OpArgs& args) {
  return elements_between(args.outputs[0].shape, 0, args.ints[0]);
}

size_t task_rows(const OpArgs& args) {
  const size_t rows = kBlock / (row_elements(args) + 1);
  return rows > 1 ? rows : 1;
}

size_t tasks(const OpArgs& args) {
  return (outer_rows(args) + task_rows(args) - 1) / task_rows(args);
}

void requantize_run(const int8_t* x, int8_t* y, size_t n, const Rescale& rescale) {
  for (size_t i = 0; i < n; ++i) y[i] = rescale(x[i]);
}

void run(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const TensorView& out = args.outputs[0];
  const size_t item = dtype_bytes(out.dtype), stride = row_elements(args);
  const size_t first = begin * task_rows(args);
  const size_t stop = end * task_rows(args);
  const size_t last = stop < outer_rows(args) ? stop : outer_rows(args);
  size_t offset = 0;
  for (int i = 0; i < args.input_count; ++i) {
    const TensorView& in = args.inputs[i];
    const size_t run = elements_between(in.shape, args.ints[0], in.shape.rank);
    const bool same = same_quant(in, out);
    const Rescale rescale = same ? Rescale{} : make_rescale(in.quant, out.quant);
    for (size_t row = first; row < last; ++row) {
      const char* x = in.as<char>() + row * run * item;
      char* y = out.mutable_as<char>() + (row * stride + offset) * item;
      if (same) {
        std::memcpy(y, x, run * item);
      } else {
        requantize_run(reinterpret_cast<const int8_t*>(x), reinterpret_cast<int8_t*>(y), run,
                       rescale);
      }
    }
    offset += run;
  }
}

}  // namespace

extern const Kernel concat_any_reference =
    plain_kernel("concat_any_reference", Op::k_concat, Isa::reference, accepts, tasks, run);

}  // namespace pyedge
