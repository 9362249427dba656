// The functions of one tensor as loops that the compiler vectorizes; a file of an instruction set
// includes this and lists PYEDGE_UNARY_KERNELS(isa). The i8 tables of reference.cc need no other
// version.
#pragma once

#include "kernels/unary/unary.h"

namespace pyedge {
namespace {

template <typename F>
inline void map(const OpArgs& args, size_t begin, size_t end, F f) {
  const float* x = args.inputs[0].as<float>();
  float* y = args.outputs[0].mutable_as<float>();
  const Span span = block_span(args, begin, end);
  for (size_t i = span.begin; i < span.end; ++i) y[i] = f(x[i]);
}

void run_clip(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const float lo = args.floats[0], hi = args.floats[1];
  map(args, begin, end, [=](float x) { return clamp(x, lo, hi); });
}

void run_sigmoid(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  map(args, begin, end, [](float x) { return sigmoid(x); });
}

void run_hard_sigmoid(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const float alpha = args.floats[0], beta = args.floats[1];
  map(args, begin, end, [=](float x) { return hard_sigmoid(x, alpha, beta); });
}

void run_hard_swish(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  map(args, begin, end, [](float x) { return hard_swish(x); });
}

void run_tanh(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  map(args, begin, end, [](float x) { return tanh(x); });
}

// Calls f(x, slope) for each element of the tasks, pixel by pixel.
template <typename T, typename F>
inline void map_channels(const OpArgs& args, size_t begin, size_t end, F f) {
  const T* x = args.inputs[0].as<T>();
  const float* slope = args.inputs[1].as<float>();
  T* y = args.outputs[0].mutable_as<T>();
  const size_t channels = static_cast<size_t>(args.inputs[1].shape.dims[0]);
  const Span span = block_span(args, begin, end);
  size_t channel = span.begin % channels;
  for (size_t i = span.begin; i < span.end;) {
    const size_t row = channels - channel, rest = span.end - i;
    const size_t n = row < rest ? row : rest;
    for (size_t k = 0; k < n; ++k) y[i + k] = f(x[i + k], slope[channel + k]);
    i += n;
    channel = 0;
  }
}

void run_prelu_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  map_channels<float>(args, begin, end, [](float x, float slope) { return prelu(x, slope); });
}

void run_prelu_i8(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const Rescale rescale = make_rescale(args.inputs[0].quant, args.outputs[0].quant);
  map_channels<int8_t>(args, begin, end, [=](int8_t x, float slope) {
    const float steps = static_cast<float>(x - rescale.zero_in) * rescale.ratio;
    return requantize(prelu(steps, slope), rescale.lo, rescale.hi, rescale.zero_out);
  });
}

}  // namespace
}  // namespace pyedge

#define PYEDGE_UNARY_KERNEL(op, dtype, accepts, run, isa)  \
  extern const Kernel op##_##dtype##_##isa = plain_kernel( \
      #op "_" #dtype "_" #isa, Op::k_##op, Isa::isa, accepts, block_tasks, run, kUnaryInPlace);

#define PYEDGE_UNARY_KERNELS(isa)                                                  \
  PYEDGE_UNARY_KERNEL(clip, f32, accepts_unary_f32, run_clip, isa)                 \
  PYEDGE_UNARY_KERNEL(sigmoid, f32, accepts_unary_f32, run_sigmoid, isa)           \
  PYEDGE_UNARY_KERNEL(hard_sigmoid, f32, accepts_unary_f32, run_hard_sigmoid, isa) \
  PYEDGE_UNARY_KERNEL(hard_swish, f32, accepts_unary_f32, run_hard_swish, isa)     \
  PYEDGE_UNARY_KERNEL(tanh, f32, accepts_unary_f32, run_tanh, isa)                 \
  PYEDGE_UNARY_KERNEL(prelu, f32, accepts_prelu_f32, run_prelu_f32, isa)           \
  PYEDGE_UNARY_KERNEL(prelu, i8, accepts_prelu_i8, run_prelu_i8, isa)
