// Transposition by tiles; up to four interleaved planes (an image's channels) have loops of
// constant length, which the compiler turns into shuffles. A file of an instruction set includes
// this and lists PYEDGE_TRANSPOSE_KERNELS(isa).
#pragma once

#include <cstring>

#include "kernels/transpose/transpose.h"

namespace pyedge {
namespace {

// y[u * kPlanes + i] = x[u + i * stride]
template <int kPlanes, typename T>
inline void interleave(const T* __restrict x, T* __restrict y, size_t pixels, size_t stride) {
  for (size_t u = 0; u < pixels; ++u) {
    for (size_t i = 0; i < kPlanes; ++i) y[u * kPlanes + i] = x[u + i * stride];
  }
}

// y[u * stride + i] = x[u + i * kPlanes]
template <int kPlanes, typename T>
inline void deinterleave(const T* __restrict x, T* __restrict y, size_t pixels, size_t stride) {
  for (size_t i = 0; i < pixels; ++i) {
    for (size_t u = 0; u < kPlanes; ++u) y[u * stride + i] = x[u + i * kPlanes];
  }
}

// Squares of kSide^2 elements, so that the lines they touch stay in the cache.
template <typename T>
inline void transpose_squares(const T* __restrict x, T* __restrict y, const TransposeTile& tile,
                              size_t y_stride, size_t x_stride) {
  constexpr size_t kSide = 16;
  for (size_t u = 0; u < tile.u; u += kSide) {
    const size_t u_end = u + kSide < tile.u ? u + kSide : tile.u;
    for (size_t i = 0; i < tile.i; i += kSide) {
      const size_t i_end = i + kSide < tile.i ? i + kSide : tile.i;
      for (size_t v = u; v < u_end; ++v) {
        for (size_t j = i; j < i_end; ++j) y[v * y_stride + j] = x[v + j * x_stride];
      }
    }
  }
}

template <typename T>
inline void transpose_one(const T* x, T* y, const TransposeTile& tile, const TransposePlan& plan) {
  const size_t y_stride = plan.y_stride_u, x_stride = plan.x_stride_i;
  if (x_stride == 1) {
    std::memcpy(y, x, tile.i * sizeof(T));
  } else if (plan.i == 2 && y_stride == 2) {
    interleave<2>(x, y, tile.u, x_stride);
  } else if (plan.i == 3 && y_stride == 3) {
    interleave<3>(x, y, tile.u, x_stride);
  } else if (plan.i == 4 && y_stride == 4) {
    interleave<4>(x, y, tile.u, x_stride);
  } else if (plan.u == 2 && x_stride == 2) {
    deinterleave<2>(x, y, tile.i, y_stride);
  } else if (plan.u == 3 && x_stride == 3) {
    deinterleave<3>(x, y, tile.i, y_stride);
  } else if (plan.u == 4 && x_stride == 4) {
    deinterleave<4>(x, y, tile.i, y_stride);
  } else {
    transpose_squares(x, y, tile, y_stride, x_stride);
  }
}

template <typename T>
void run_transpose(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const TransposePlan plan = transpose_plan(args);
  for (size_t task = begin; task < end; ++task) {
    const TransposeTile tile = transpose_tile(plan, task);
    transpose_one(args.inputs[0].as<T>() + tile.x, args.outputs[0].mutable_as<T>() + tile.y, tile,
                  plan);
  }
}

}  // namespace
}  // namespace pyedge

#define PYEDGE_TRANSPOSE_KERNELS(isa)                                                       \
  extern const Kernel transpose_f32_##isa =                                                 \
      plain_kernel("transpose_f32_" #isa, Op::k_transpose, Isa::isa, accepts_transpose_f32, \
                   transpose_tasks, run_transpose<float>);                                  \
  extern const Kernel transpose_i8_##isa =                                                  \
      plain_kernel("transpose_i8_" #isa, Op::k_transpose, Isa::isa, accepts_transpose_i8,   \
                   transpose_tasks, run_transpose<int8_t>);
