// y = x / max(sqrt(sum of x^2), epsilon) along an axis, in double, summed in the order of the
// axis, rounded to float at the end. f32 only.
#include <cmath>

#include "kernels/common.h"

namespace pyedge {
namespace {

void run(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const Shape& shape = args.inputs[0].shape;
  const size_t length = line_length(args);
  const size_t inner = elements_between(shape, args.ints[0] + 1, shape.rank);
  const double epsilon = args.floats[0];
  for (size_t line = begin; line < end; ++line) {
    const size_t first = line / inner * length * inner + line % inner;
    const float* x = args.inputs[0].as<float>() + first;
    float* y = args.outputs[0].mutable_as<float>() + first;
    double sum = 0.0;
    for (size_t i = 0; i < length; ++i) {
      const double v = x[i * inner];
      sum += v * v;
    }
    const double norm = std::sqrt(sum);
    const double divisor = norm > epsilon ? norm : epsilon;
    for (size_t i = 0; i < length; ++i) {
      y[i * inner] = static_cast<float>(static_cast<double>(x[i * inner]) / divisor);
    }
  }
}

}  // namespace

extern const Kernel l2_normalize_f32_reference =
    plain_kernel("l2_normalize_f32_reference", Op::k_l2_normalize, Isa::reference, accepts_lines,
                 line_tasks, run);

}  // namespace pyedge
