// y = e^(x - max) / sum of the same, in double, summed in the order of the axis, rounded to float
// at the end. f32 only.
#include "kernels/common.h"

namespace pyedge {
namespace {

size_t scratch_bytes(const OpArgs& args) { return line_length(args) * sizeof(double); }

void run(const OpArgs& args, const void*, void* scratch, size_t begin, size_t end) {
  const Shape& shape = args.inputs[0].shape;
  const size_t length = line_length(args);
  const size_t inner = elements_between(shape, args.ints[0] + 1, shape.rank);
  double* exponentials = static_cast<double*>(scratch);
  for (size_t line = begin; line < end; ++line) {
    const size_t first = line / inner * length * inner + line % inner;
    const float* x = args.inputs[0].as<float>() + first;
    float* y = args.outputs[0].mutable_as<float>() + first;
    float greatest = x[0];
    for (size_t i = 1; i < length; ++i)
      greatest = x[i * inner] > greatest ? x[i * inner] : greatest;
    double sum = 0.0;
    for (size_t i = 0; i < length; ++i) {
      exponentials[i] = deterministic_exp(static_cast<double>(x[i * inner]) - greatest);
      sum += exponentials[i];
    }
    for (size_t i = 0; i < length; ++i) y[i * inner] = static_cast<float>(exponentials[i] / sum);
  }
}

}  // namespace

extern const Kernel softmax_f32_reference = {"softmax_f32_reference",
                                             Op::k_softmax,
                                             Isa::reference,
                                             accepts_lines,
                                             nullptr,
                                             nullptr,
                                             nullptr,
                                             scratch_bytes,
                                             line_tasks,
                                             run};

}  // namespace pyedge
