// Scalar functions of one tensor.
#include "kernels/unary/unary.h"

namespace pyedge {

bool accepts_unary_f32(const OpArgs& args) {
  return has_dtypes(args, DType::kF32, DType::kF32) &&
         args.inputs[0].shape == args.outputs[0].shape;
}

namespace {

bool accepts_i8(const OpArgs& args) {
  return has_dtypes(args, DType::kI8, DType::kI8) && args.inputs[0].shape == args.outputs[0].shape;
}

bool slope_fits(const OpArgs& args) {
  const TensorView& slope = args.inputs[1];
  const Shape& x = args.inputs[0].shape;
  return slope.present && slope.dtype == DType::kF32 && x.rank > 0 && slope.shape.rank == 1 &&
         slope.shape[0] == x[x.rank - 1];
}

float value(const OpArgs& args, float x) {
  switch (args.op) {
    case Op::k_clip:
      return clamp(x, args.floats[0], args.floats[1]);
    case Op::k_sigmoid:
      return sigmoid(x);
    case Op::k_hard_sigmoid:
      return hard_sigmoid(x, args.floats[0], args.floats[1]);
    case Op::k_hard_swish:
      return hard_swish(x);
    default:
      return tanh(x);
  }
}

void run_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const float* x = args.inputs[0].as<float>();
  float* y = args.outputs[0].mutable_as<float>();
  const Span span = block_span(args, begin, end);
  for (size_t i = span.begin; i < span.end; ++i) y[i] = value(args, x[i]);
}

size_t table_bytes(const OpArgs&) { return 256; }

void make_table(const OpArgs& args, void* prepared) {
  const Quant in = args.inputs[0].quant, out = args.outputs[0].quant;
  int8_t* table = static_cast<int8_t*>(prepared);
  for (int q = -128; q < 128; ++q) {
    const float x = dequantize(static_cast<int8_t>(q), in.scale, in.zero_point);
    table[q + 128] = quantize(value(args, x), reciprocal(out.scale), out.zero_point);
  }
}

void run_i8(const OpArgs& args, const void* prepared, void*, size_t begin, size_t end) {
  const int8_t* table = static_cast<const int8_t*>(prepared) + 128;
  const int8_t* x = args.inputs[0].as<int8_t>();
  int8_t* y = args.outputs[0].mutable_as<int8_t>();
  const Span span = block_span(args, begin, end);
  for (size_t i = span.begin; i < span.end; ++i) y[i] = table[x[i]];
}

size_t channels(const OpArgs& args) { return args.inputs[1].shape.elements(); }

void run_prelu_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const float* x = args.inputs[0].as<float>();
  const float* slope = args.inputs[1].as<float>();
  float* y = args.outputs[0].mutable_as<float>();
  const Span span = block_span(args, begin, end);
  for (size_t i = span.begin; i < span.end; ++i) y[i] = prelu(x[i], slope[i % channels(args)]);
}

void run_prelu_i8(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const int8_t* x = args.inputs[0].as<int8_t>();
  const float* slope = args.inputs[1].as<float>();
  int8_t* y = args.outputs[0].mutable_as<int8_t>();
  const Rescale rescale = make_rescale(args.inputs[0].quant, args.outputs[0].quant);
  const Span span = block_span(args, begin, end);
  for (size_t i = span.begin; i < span.end; ++i) {
    const float steps = static_cast<float>(x[i] - rescale.zero_in) * rescale.ratio;
    y[i] = requantize(prelu(steps, slope[i % channels(args)]), rescale.lo, rescale.hi,
                      rescale.zero_out);
  }
}

}  // namespace

bool accepts_prelu_f32(const OpArgs& args) { return accepts_unary_f32(args) && slope_fits(args); }
bool accepts_prelu_i8(const OpArgs& args) { return accepts_i8(args) && slope_fits(args); }

#define UNARY(op)                                                                        \
  extern const Kernel op##_f32_reference =                                               \
      plain_kernel(#op "_f32_reference", Op::k_##op, Isa::reference, accepts_unary_f32,  \
                   block_tasks, run_f32, kUnaryInPlace);                                 \
  extern const Kernel op##_i8_reference = {                                              \
      #op "_i8_reference", Op::k_##op, Isa::reference, accepts_i8, nullptr, table_bytes, \
      make_table,          nullptr,    block_tasks,    run_i8,     0,       kUnaryInPlace};
UNARY(clip)
UNARY(sigmoid)
UNARY(hard_sigmoid)
UNARY(hard_swish)
UNARY(tanh)
#undef UNARY

extern const Kernel prelu_f32_reference =
    plain_kernel("prelu_f32_reference", Op::k_prelu, Isa::reference, accepts_prelu_f32, block_tasks,
                 run_prelu_f32, kUnaryInPlace);
extern const Kernel prelu_i8_reference =
    plain_kernel("prelu_i8_reference", Op::k_prelu, Isa::reference, accepts_prelu_i8, block_tasks,
                 run_prelu_i8, kUnaryInPlace);

}  // namespace pyedge
