// Pooling as loops over channels that the compiler vectorizes; a file of an instruction set
// includes this and lists PYEDGE_POOL_KERNELS(isa).
#pragma once

#include "kernels/channels.h"
#include "kernels/pool/pool.h"

namespace pyedge {
namespace {

// Calls pool(x, y, n, taps, count) for each task: the first tap and output of n channels, the taps
// of their window, and the number by which an average divides.
template <typename T, typename Pool>
inline void for_each_block(const OpArgs& args, size_t begin, size_t end, Pool pool) {
  const PoolGeometry g = pool_geometry(args);
  const size_t channels = static_cast<size_t>(g.channels);
  const size_t blocks = (channels + kPoolChannels - 1) / kPoolChannels;
  for (size_t task = begin; task < end; ++task) {
    const size_t pixel = task / blocks, channel = task % blocks * kPoolChannels;
    const size_t rest = channels - channel, n = rest < kPoolChannels ? rest : kPoolChannels;
    const PoolWindow window = pool_window(g, pixel);
    const ChannelWindow taps{window.rows, window.columns, static_cast<size_t>(g.in_w) * channels,
                             channels};
    pool(args.inputs[0].as<T>() + window.first + channel,
         args.outputs[0].mutable_as<T>() + pixel * channels + channel, n, taps, window.count);
  }
}

void run_max_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  for_each_block<float>(
      args, begin, end, [](const float* x, float* y, size_t n, const ChannelWindow& taps, double) {
        for_each_channel(
            x, y, n, taps, -__builtin_inff(), [](float acc, float v) { return v > acc ? v : acc; },
            [](float acc) { return acc; });
      });
}

void run_max_i8(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const bool same = same_quant(args.inputs[0], args.outputs[0]);
  const Rescale rescale = make_rescale(args.inputs[0].quant, args.outputs[0].quant);
  for_each_block<int8_t>(
      args, begin, end,
      [=](const int8_t* x, int8_t* y, size_t n, const ChannelWindow& taps, double) {
        const auto greater = [](int8_t acc, int8_t v) { return v > acc ? v : acc; };
        const int8_t least = -128;
        if (same) {
          for_each_channel(x, y, n, taps, least, greater, [](int8_t acc) { return acc; });
        } else {
          for_each_channel(x, y, n, taps, least, greater, rescale);
        }
      });
}

void run_average_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  for_each_block<float>(
      args, begin, end,
      [](const float* x, float* y, size_t n, const ChannelWindow& taps, double count) {
        for_each_channel(
            x, y, n, taps, 0.0, [](double acc, float v) { return acc + static_cast<double>(v); },
            [=](double acc) { return static_cast<float>(acc / count); });
      });
}

void run_average_i8(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const Quant in = args.inputs[0].quant, out = args.outputs[0].quant;
  for_each_block<int8_t>(
      args, begin, end,
      [=](const int8_t* x, int8_t* y, size_t n, const ChannelWindow& taps, double count) {
        const Rescale rescale = make_rescale(in, out, count);
        const int32_t zeros = taps.rows * taps.columns * in.zero_point;
        for_each_channel(
            x, y, n, taps, 0, [](int32_t acc, int8_t v) { return acc + v; },
            [=](int32_t acc) { return rescale(static_cast<float>(acc - zeros)); });
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
