// Between f32 and i8 as loops that the compiler vectorizes; a file of an instruction set includes
// this and lists PYEDGE_QUANTIZE_KERNELS(isa).
#pragma once

#include "kernels/quantize/quantize.h"

namespace pyedge {
namespace {

void run_quantize(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const Quant quant = args.outputs[0].quant;
  const float scale = reciprocal(quant.scale);
  const float* x = args.inputs[0].as<float>();
  int8_t* y = args.outputs[0].mutable_as<int8_t>();
  const Span span = block_span(args, begin, end);
  for (size_t i = span.begin; i < span.end; ++i) y[i] = quantize(x[i], scale, quant.zero_point);
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
}  // namespace pyedge

#define PYEDGE_QUANTIZE_KERNELS(isa)                                                               \
  extern const Kernel quantize_i8_##isa = plain_kernel(                                            \
      "quantize_i8_" #isa, Op::k_quantize, Isa::isa, accepts_quantize, block_tasks, run_quantize); \
  extern const Kernel dequantize_i8_##isa =                                                        \
      plain_kernel("dequantize_i8_" #isa, Op::k_dequantize, Isa::isa, accepts_dequantize,          \
                   block_tasks, run_dequantize);
