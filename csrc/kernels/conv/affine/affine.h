// INT8 convolution of a depthwise 1x1 kernel: every channel has its own factor and offset, as a
// BatchNorm that no neighbouring layer could take in. Elements are walked through in memory order,
// so layers of few channels fill the lanes too.
//
// Loops that the compiler vectorizes; a file of an instruction set includes this and defines its
// row with affine_kernel.
#pragma once

#include <cmath>

#include "kernels/common.h"
#include "kernels/conv/conv.h"

namespace pyedge {

bool affine_accepts(const OpArgs& args);
// Beside depthwise kernels for blocks of 32 channels, which are faster where blocks are full.
double affine_cost(const OpArgs& args);
// Where no other kernel for these layers is faster.
double affine_cost_alone(const OpArgs& args);
size_t affine_prepared_bytes(const OpArgs& args);
void affine_prepare(const OpArgs& args, void* prepared);
// Elements of the arrays in the prepared block: the channels, repeated until loops are long.
size_t affine_period(const OpArgs& args);

namespace {

void run_affine(const OpArgs& args, const void* prepared, void*, size_t begin, size_t end) {
  const size_t period = affine_period(args);
  const float* weight = static_cast<const float*>(prepared);
  const float *scale = weight + period, *bias = scale + period, *slope = bias + period;
  const ConvOutput out = conv_output(args);
  const int32_t zero_point = args.inputs[kConvX].quant.zero_point;
  const Span span = block_span(args, begin, end);
  size_t phase = span.begin % static_cast<size_t>(conv_geometry(args).out_c);
  for (size_t i = span.begin; i < span.end;) {
    const size_t n = span.end - i < period - phase ? span.end - i : period - phase;
    const int8_t* x = args.inputs[kConvX].as<int8_t>() + i;
    int8_t* y = args.outputs[0].mutable_as<int8_t>() + i;
    for (size_t k = 0; k < n; ++k) {
      const size_t c = phase + k;
      // The product of two 9-bit integers is exact.
      const float acc = static_cast<float>(x[k] - zero_point) * weight[c];
      const float steps = std::fma(acc, scale[c], bias[c]);
      y[k] = requantize(steps < 0.0f ? steps * slope[c] : steps, out.lo, out.hi, out.zero_point);
    }
    i += n;
    phase = 0;
  }
}

constexpr Kernel affine_kernel(const char* name, Isa isa, double (*cost)(const OpArgs&)) {
  return {
      name,           Op::k_conv, isa,         affine_accepts, cost,       affine_prepared_bytes,
      affine_prepare, nullptr,    block_tasks, run_affine,     kConvPacks, 1u << kConvX};
}

}  // namespace
}  // namespace pyedge
