// Pooling as loops over channels that the compiler vectorizes; a file of an instruction set
// includes this and lists PYEDGE_POOL_KERNELS(isa).
#pragma once

#include "kernels/pool/pool.h"

namespace pyedge {
namespace {

// Calls pool(x, y, n, window) with the first tap of each block of n channels, and its output.
template <typename T, typename Pool>
inline void for_each_block(const OpArgs& args, size_t begin, size_t end, Pool pool) {
  const PoolGeometry g = pool_geometry(args);
  const size_t channels = static_cast<size_t>(g.channels);
  const size_t blocks = (channels + kPoolChannels - 1) / kPoolChannels;
  for (size_t task = begin; task < end; ++task) {
    const size_t pixel = task / blocks, channel = task % blocks * kPoolChannels;
    const size_t rest = channels - channel, n = rest < kPoolChannels ? rest : kPoolChannels;
    const PoolWindow window = pool_window(g, pixel);
    pool(args.inputs[0].as<T>() + window.first + channel,
         args.outputs[0].mutable_as<T>() + pixel * channels + channel, n, window);
  }
}

// acc[c] = combine(acc[c], x[c]) for each tap.
template <typename T, typename Acc, typename Combine>
inline void accumulate(const OpArgs& args, const PoolWindow& window, const T* x, Acc* acc, size_t n,
                       Combine combine) {
  const size_t channels = static_cast<size_t>(args.inputs[0].shape.dims[3]);
  const size_t line = static_cast<size_t>(args.inputs[0].shape.dims[2]) * channels;
  for (int32_t row = 0; row < window.rows; ++row) {
    for (int32_t column = 0; column < window.columns; ++column) {
      const T* tap = x + static_cast<size_t>(row) * line + static_cast<size_t>(column) * channels;
      for (size_t c = 0; c < n; ++c) acc[c] = combine(acc[c], tap[c]);
    }
  }
}

void run_max_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  for_each_block<float>(
      args, begin, end, [&](const float* x, float* y, size_t n, const PoolWindow& window) {
        float acc[kPoolChannels];
        for (size_t c = 0; c < n; ++c) acc[c] = -__builtin_inff();
        accumulate(args, window, x, acc, n, [](float a, float v) { return v > a ? v : a; });
        for (size_t c = 0; c < n; ++c) y[c] = acc[c];
      });
}

void run_max_i8(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const bool same = same_quant(args.inputs[0], args.outputs[0]);
  const Rescale rescale = make_rescale(args.inputs[0].quant, args.outputs[0].quant);
  for_each_block<int8_t>(
      args, begin, end, [&](const int8_t* x, int8_t* y, size_t n, const PoolWindow& window) {
        int8_t acc[kPoolChannels];
        for (size_t c = 0; c < n; ++c) acc[c] = -128;
        accumulate(args, window, x, acc, n, [](int8_t a, int8_t v) { return v > a ? v : a; });
        const Rescale local = rescale;  // y may alias whatever has an address
        for (size_t c = 0; c < n; ++c) y[c] = same ? acc[c] : local(acc[c]);
      });
}

void run_average_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  for_each_block<float>(args, begin, end,
                        [&](const float* x, float* y, size_t n, const PoolWindow& window) {
                          double acc[kPoolChannels] = {};
                          accumulate(args, window, x, acc, n,
                                     [](double a, float v) { return a + static_cast<double>(v); });
                          for (size_t c = 0; c < n; ++c)
                            y[c] = static_cast<float>(acc[c] / window.count);
                        });
}

void run_average_i8(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const Quant in = args.inputs[0].quant, out = args.outputs[0].quant;
  for_each_block<int8_t>(
      args, begin, end, [&](const int8_t* x, int8_t* y, size_t n, const PoolWindow& window) {
        int32_t acc[kPoolChannels] = {};
        accumulate(args, window, x, acc, n, [](int32_t a, int8_t v) { return a + v; });
        const Rescale rescale = make_rescale(in, out, window.count);
        const int32_t zero = window.rows * window.columns * in.zero_point;
        for (size_t c = 0; c < n; ++c) y[c] = rescale(static_cast<float>(acc[c] - zero));
      });
}

}  // namespace
}  // namespace pyedge

#define PYEDGE_POOL_KERNEL(op, dtype, run, isa)            \
  extern const Kernel op##_##dtype##_##isa = plain_kernel( \
      #op "_" #dtype "_" #isa, Op::k_##op, Isa::isa, accepts_pool_##dtype, pool_tasks, run);

#define PYEDGE_POOL_KERNELS(isa)                              \
  PYEDGE_POOL_KERNEL(max_pool, f32, run_max_f32, isa)         \
  PYEDGE_POOL_KERNEL(max_pool, i8, run_max_i8, isa)           \
  PYEDGE_POOL_KERNEL(average_pool, f32, run_average_f32, isa) \
  PYEDGE_POOL_KERNEL(average_pool, i8, run_average_i8, isa)
