// The loops over rows and inputs, compiled for the reference and again for each instruction set
// whose compiler vectorizes the requantization.
#pragma once

#include <cstring>

#include "kernels/concat/concat.h"

namespace pyedge {
namespace {

inline void requantize_run(const int8_t* x, int8_t* y, size_t n, Rescale rescale) {
  for (size_t i = 0; i < n; ++i) y[i] = rescale(x[i]);
}

void run_concat(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const TensorView& out = args.outputs[0];
  const ConcatGeometry g = concat_geometry(args);
  const size_t item = dtype_bytes(out.dtype);
  const size_t last = end * g.task_rows < g.outer ? end * g.task_rows : g.outer;
  size_t offset = 0;
  for (int i = 0; i < args.input_count; ++i) {
    const TensorView& in = args.inputs[i];
    const size_t run = elements_between(in.shape, args.ints[0], in.shape.rank);
    const bool same = same_quant(in, out);
    const Rescale rescale = same ? Rescale{} : make_rescale(in.quant, out.quant);
    for (size_t row = begin * g.task_rows; row < last; ++row) {
      const size_t from = row * run, to = row * g.row_elements + offset;
      if (same) {
        std::memcpy(out.mutable_as<char>() + to * item, in.as<char>() + from * item, run * item);
      } else {
        requantize_run(in.as<int8_t>() + from, out.mutable_as<int8_t>() + to, run, rescale);
      }
    }
    offset += run;
  }
}

}  // namespace
}  // namespace pyedge
