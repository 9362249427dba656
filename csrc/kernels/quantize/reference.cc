// Between f32 and i8, one element at a time.
#include "kernels/quantize/quantize.h"

namespace pyedge {

bool accepts_quantize(const OpArgs& args) {
  return has_dtypes(args, DType::kF32, DType::kI8) && args.inputs[0].shape == args.outputs[0].shape;
}

bool accepts_dequantize(const OpArgs& args) {
  return has_dtypes(args, DType::kI8, DType::kF32) && args.inputs[0].shape == args.outputs[0].shape;
}

namespace {

void run_quantize(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const Quant quant = args.outputs[0].quant;
  const float* x = args.inputs[0].as<float>();
  int8_t* y = args.outputs[0].mutable_as<int8_t>();
  const Span span = block_span(args, begin, end);
  for (size_t i = span.begin; i < span.end; ++i) {
    y[i] = quantize(x[i], reciprocal(quant.scale), quant.zero_point);
  }
}

void run_dequantize(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const Quant quant = args.inputs[0].quant;
  const int8_t* x = args.inputs[0].as<int8_t>();
  float* y = args.outputs[0].mutable_as<float>();
  const Span span = block_span(args, begin, end);
  for (size_t i = span.begin; i < span.end; ++i) {
    y[i] = dequantize(x[i], quant.scale, quant.zero_point);
  }
}

}  // namespace

extern const Kernel quantize_i8_reference =
    plain_kernel("quantize_i8_reference", Op::k_quantize, Isa::reference, accepts_quantize,
                 block_tasks, run_quantize);
extern const Kernel dequantize_i8_reference =
    plain_kernel("dequantize_i8_reference", Op::k_dequantize, Isa::reference, accepts_dequantize,
                 block_tasks, run_dequantize);

}  // namespace pyedge
