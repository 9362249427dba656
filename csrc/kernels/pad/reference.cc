// Pads, or crops with negative amounts, any axis: a constant, the mirrored inside or the edge.
// i8 requantizes where the quantizations differ; the constant is quantized with the output's.
#include "kernels/common.h"

namespace pyedge {
namespace {

enum PadMode { kConstant, kReflect, kEdge };

int32_t amount_before(const OpArgs& args, int axis) { return args.ints[1 + 2 * axis]; }
int32_t amount_after(const OpArgs& args, int axis) { return args.ints[2 + 2 * axis]; }

bool accepts(const OpArgs& args) {
  const TensorView &x = args.inputs[0], &y = args.outputs[0];
  if (x.dtype != y.dtype || x.shape.rank != y.shape.rank) return false;
  if (args.int_count != 1 + 2 * x.shape.rank || args.ints[0] < kConstant || args.ints[0] > kEdge) {
    return false;
  }
  for (int axis = 0; axis < x.shape.rank; ++axis) {
    const int64_t length =
        static_cast<int64_t>(x.shape[axis]) + amount_before(args, axis) + amount_after(args, axis);
    if (x.shape[axis] < 1 || y.shape[axis] != length) return false;
  }
  return true;
}

constexpr int64_t kOutside = -1;

// The index along one axis of the input that an index of the output shows.
int64_t source_index(int64_t index, int64_t length, int32_t mode) {
  if (index >= 0 && index < length) return index;
  if (mode == kConstant) return kOutside;
  if (mode == kEdge || length == 1) return index < 0 ? 0 : length - 1;
  const int64_t period = 2 * (length - 1);
  index %= period;
  if (index < 0) index += period;
  return index < length ? index : period - index;
}

// A task is a row along the last axis. A tensor of rank 0 has one row of one element.
int64_t row_length(const Shape& shape) { return shape.rank == 0 ? 1 : shape[shape.rank - 1]; }

size_t tasks(const OpArgs& args) {
  return elements_between(args.outputs[0].shape, 0, args.outputs[0].shape.rank - 1);
}

// The first element of the input row that an output row shows, or kOutside.
int64_t source_row(const OpArgs& args, size_t row) {
  const Shape &x = args.inputs[0].shape, &y = args.outputs[0].shape;
  const Strides strides = strides_of(x);
  int64_t offset = 0;
  for (int axis = y.rank - 2; axis >= 0; --axis) {
    const size_t length = static_cast<size_t>(y[axis]);
    const int64_t index = static_cast<int64_t>(row % length) - amount_before(args, axis);
    const int64_t source = source_index(index, x[axis], args.ints[0]);
    if (source == kOutside) return kOutside;
    offset += source * static_cast<int64_t>(strides.of[axis]);
    row /= length;
  }
  return offset;
}

template <typename T, typename Convert>
void run_rows(const OpArgs& args, size_t begin, size_t end, T constant, Convert convert) {
  const Shape& in = args.inputs[0].shape;
  const int64_t out_length = row_length(args.outputs[0].shape), in_length = row_length(in);
  const int32_t before = in.rank == 0 ? 0 : amount_before(args, in.rank - 1);
  for (size_t row = begin; row < end; ++row) {
    T* y = args.outputs[0].mutable_as<T>() + row * static_cast<size_t>(out_length);
    const int64_t first = source_row(args, row);
    if (first != kOutside && before == 0 && in_length == out_length) {
      const T* x = args.inputs[0].as<T>() + first;
      for (int64_t i = 0; i < out_length; ++i) y[i] = convert(x[i]);
      continue;
    }
    for (int64_t i = 0; i < out_length; ++i) {
      const int64_t source = source_index(i - before, in_length, args.ints[0]);
      y[i] = first == kOutside || source == kOutside
                 ? constant
                 : convert(args.inputs[0].as<T>()[first + source]);
    }
  }
}

void run(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const TensorView &x = args.inputs[0], &y = args.outputs[0];
  const float value = args.floats[0];
  if (x.dtype == DType::kF32) {
    run_rows<float>(args, begin, end, value, [](float v) { return v; });
    return;
  }
  const int8_t constant = quantize(value, reciprocal(y.quant.scale), y.quant.zero_point);
  if (same_quant(x, y)) {
    run_rows<int8_t>(args, begin, end, constant, [](int8_t q) { return q; });
  } else {
    run_rows<int8_t>(args, begin, end, constant, make_rescale(x.quant, y.quant));
  }
}

}  // namespace

extern const Kernel pad_any_reference =
    plain_kernel("pad_any_reference", Op::k_pad, Isa::reference, accepts, tasks, run);

}  // namespace pyedge
