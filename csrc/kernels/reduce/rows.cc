#include "kernels/reduce/rows.h"

namespace pyedge {
namespace {

bool takes_rows(const OpArgs& args) {
  for (int i = 2; i < args.int_count; ++i) {
    if (args.ints[i] != args.ints[i - 1] + 1) return false;
  }
  // The sum of an i8 column stays within int32: 2^23 * 255 < 2^31.
  const int first = args.ints[1], last = args.ints[args.int_count - 1];
  return reduce_rows(args).channels > 1 &&
         elements_between(args.inputs[0].shape, first, last + 1) <= size_t{1} << 23;
}

}  // namespace

ReduceRows reduce_rows(const OpArgs& args) {
  const Shape& x = args.inputs[0].shape;
  const int first = args.ints[1], last = args.ints[args.int_count - 1];
  return {elements_between(x, 0, first), elements_between(x, last + 1, x.rank),
          static_cast<int32_t>(elements_between(x, first, last + 1))};
}

bool accepts_reduce_rows_f32(const OpArgs& args) {
  return accepts_reduce_f32(args) && takes_rows(args);
}
bool accepts_reduce_rows_i8(const OpArgs& args) {
  return accepts_reduce_i8(args) && takes_rows(args);
}

size_t reduce_rows_tasks(const OpArgs& args) {
  const ReduceRows g = reduce_rows(args);
  return g.outer * ((g.channels + kReduceChannels - 1) / kReduceChannels);
}

}  // namespace pyedge
