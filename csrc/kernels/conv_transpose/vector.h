// Transposed convolution as loops over output channels that the compiler vectorizes; a file of an
// instruction set includes this and lists PYEDGE_CONV_TRANSPOSE_KERNELS(isa).
#pragma once

#include <cstring>
#include <type_traits>

#include "kernels/conv_transpose/conv_transpose.h"

namespace pyedge {
namespace {

constexpr size_t kChannels = 64;  // that are summed up at once

// acc[c] += x * w[c]
inline void accumulate(float x, const float* __restrict w, float* __restrict acc, size_t n) {
  for (size_t c = 0; c < n; ++c) acc[c] = std::fmaf(x, w[c], acc[c]);
}
inline void accumulate(int16_t x, const int16_t* __restrict w, int32_t* __restrict acc, size_t n) {
  for (size_t c = 0; c < n; ++c) acc[c] += int32_t{x} * w[c];
}

inline float factor(float x, int32_t) { return x; }
inline int16_t factor(int8_t q, int32_t zero_point) { return static_cast<int16_t>(q - zero_point); }

// Adds the taps of one output pixel: x and w are the first channel of the image and the weights.
template <typename T, typename W, typename Acc>
inline void gather(const OpArgs& args, const ConvTransposePacking& p, int32_t out_y, int32_t out_x,
                   const T* x, const W* w, Acc* acc, size_t n) {
  const Shape &image = args.inputs[kConvX].shape, &kernel = args.inputs[kConvWeight].shape;
  const int32_t zero_point = args.inputs[kConvX].quant.zero_point;
  const int32_t* a = args.ints;
  for (int32_t ky = 0; ky < kernel[1]; ++ky) {
    const int32_t in_y =
        conv_transpose_source(out_y, a[kPadTop], ky, a[kDilationH], a[kStrideH], image[1]);
    if (in_y < 0) continue;
    for (int32_t kx = 0; kx < kernel[2]; ++kx) {
      const int32_t in_x =
          conv_transpose_source(out_x, a[kPadLeft], kx, a[kDilationW], a[kStrideW], image[2]);
      if (in_x < 0) continue;
      const size_t pixel =
          static_cast<size_t>(in_y) * static_cast<size_t>(image[2]) + static_cast<size_t>(in_x);
      const T* x_tap = x + pixel * static_cast<size_t>(image[3]);
      const W* w_tap = w + static_cast<size_t>(ky * kernel[2] + kx) * p.in_c * p.lanes;
      for (size_t i = 0; i < p.in_c; ++i) {
        accumulate(factor(x_tap[i], zero_point), w_tap + i * p.lanes, acc, n);
      }
    }
  }
}

// What follows the accumulators: channels are scale, bias and slope, `stride` floats apart.
template <typename Acc, typename Y>
inline void finish(const Acc* __restrict acc, const float* __restrict channels, size_t stride,
                   const ConvOutput& out, Y* __restrict y, size_t n) {
  const float lo = out.lo, hi = out.hi;
  const int32_t zero_point = out.zero_point;
  for (size_t c = 0; c < n; ++c) {
    float v = static_cast<float>(acc[c]);
    if constexpr (std::is_integral_v<Acc>) v = std::fmaf(v, channels[c], channels[stride + c]);
    v = v < 0.0f ? v * channels[2 * stride + c] : v;
    if constexpr (std::is_integral_v<Y>) {
      y[c] = requantize(v, lo, hi, zero_point);
    } else {
      y[c] = clamp(v, lo, hi);
    }
  }
}

template <typename T, typename W, typename Acc, typename Y>
void run_rows(const OpArgs& args, const void* prepared, size_t begin, size_t end) {
  const Shape &x = args.inputs[kConvX].shape, &y = args.outputs[0].shape;
  const ConvTransposePacking p(args);
  const ConvOutput out = conv_output(args);
  const float* channels = static_cast<const float*>(prepared);
  const size_t stride = p.groups * p.lanes;
  const W* weights = reinterpret_cast<const W*>(channels + 3 * stride);
  const size_t image = elements_between(x, 1, 4), out_h = static_cast<size_t>(y[1]);
  Y* to = args.outputs[0].mutable_as<Y>() + begin * elements_between(y, 2, 4);
  for (size_t task = begin; task < end; ++task) {
    const T* from = args.inputs[kConvX].as<T>() + task / out_h * image;
    const int32_t out_y = static_cast<int32_t>(task % out_h);
    for (int32_t out_x = 0; out_x < y[2]; ++out_x) {
      for (size_t group = 0; group < p.groups; ++group) {
        for (size_t c = 0; c < p.out_c; c += kChannels) {
          const size_t left = p.out_c - c, padded = p.lanes - c;
          const size_t n = left < kChannels ? left : kChannels;
          const float* first = channels + group * p.lanes + c;
          Acc acc[kChannels] = {};
          if constexpr (!std::is_integral_v<Acc>) std::memcpy(acc, first + stride, n * sizeof(Acc));
          gather(args, p, out_y, out_x, from + group * p.in_c,
                 weights + group * p.group_weights() + c, acc,
                 padded < kChannels ? padded : kChannels);
          finish(acc, first, stride, out, to, n);
          to += n;
        }
      }
    }
  }
}

void run_conv_transpose_f32(const OpArgs& args, const void* prepared, void*, size_t begin,
                            size_t end) {
  run_rows<float, float, float, float>(args, prepared, begin, end);
}

void run_conv_transpose_i8(const OpArgs& args, const void* prepared, void*, size_t begin,
                           size_t end) {
  if (args.outputs[0].dtype == DType::kI8) {
    run_rows<int8_t, int16_t, int32_t, int8_t>(args, prepared, begin, end);
  } else {
    run_rows<int8_t, int16_t, int32_t, float>(args, prepared, begin, end);
  }
}

}  // namespace
}  // namespace pyedge

#define PYEDGE_CONV_TRANSPOSE_KERNEL(dtype, isa)                                           \
  extern const Kernel conv_transpose_##dtype##_##isa = {"conv_transpose_" #dtype "_" #isa, \
                                                        Op::k_conv_transpose,              \
                                                        Isa::isa,                          \
                                                        accepts_conv_transpose_##dtype,    \
                                                        nullptr,                           \
                                                        conv_transpose_prepared_bytes,     \
                                                        conv_transpose_prepare,            \
                                                        nullptr,                           \
                                                        conv_transpose_tasks,              \
                                                        run_conv_transpose_##dtype};

#define PYEDGE_CONV_TRANSPOSE_KERNELS(isa) \
  PYEDGE_CONV_TRANSPOSE_KERNEL(f32, isa)   \
  PYEDGE_CONV_TRANSPOSE_KERNEL(i8, isa)
