// Sum and mean over rows as loops over channels that the compiler vectorizes; a file of an
// instruction set includes this and lists PYEDGE_REDUCE_KERNELS(isa).
#pragma once

#include "kernels/channels.h"
#include "kernels/reduce/rows.h"

namespace pyedge {
namespace {

// Calls reduce(x, y, n, rows) for each task: the first element and output of n channels.
template <typename T, typename Reduce>
inline void for_each_block(const OpArgs& args, size_t begin, size_t end, Reduce reduce) {
  const ReduceRows g = reduce_rows(args);
  const size_t blocks = (g.channels + kReduceChannels - 1) / kReduceChannels;
  const ChannelWindow rows{1, g.rows, 0, g.channels};
  for (size_t task = begin; task < end; ++task) {
    const size_t outer = task / blocks, channel = task % blocks * kReduceChannels;
    const size_t rest = g.channels - channel, n = rest < kReduceChannels ? rest : kReduceChannels;
    reduce(args.inputs[0].as<T>() + outer * static_cast<size_t>(g.rows) * g.channels + channel,
           args.outputs[0].mutable_as<T>() + outer * g.channels + channel, n, rows);
  }
}

void run_reduce_f32(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const double count = args.op == Op::k_reduce_mean ? reduce_rows(args).rows : 1.0;
  for_each_block<float>(
      args, begin, end, [=](const float* x, float* y, size_t n, const ChannelWindow& rows) {
        for_each_channel(
            x, y, n, rows, 0.0, [](double acc, float v) { return acc + static_cast<double>(v); },
            [=](double acc) { return static_cast<float>(acc / count); });
      });
}

void run_reduce_i8(const OpArgs& args, const void*, void*, size_t begin, size_t end) {
  const double count = args.op == Op::k_reduce_mean ? reduce_rows(args).rows : 1.0;
  const Rescale rescale = make_rescale(args.inputs[0].quant, args.outputs[0].quant, count);
  for_each_block<int8_t>(
      args, begin, end, [=](const int8_t* x, int8_t* y, size_t n, const ChannelWindow& rows) {
        const int32_t zeros = rows.columns * rescale.zero_in;
        for_each_channel(
            x, y, n, rows, 0, [](int32_t acc, int8_t v) { return acc + v; },
            [=](int32_t acc) { return rescale(static_cast<float>(acc - zeros)); });
      });
}

}  // namespace
}  // namespace pyedge

#define PYEDGE_REDUCE_KERNEL(op, dtype, isa)                                                   \
  extern const Kernel op##_##dtype##_##isa =                                                   \
      plain_kernel(#op "_" #dtype "_" #isa, Op::k_##op, Isa::isa, accepts_reduce_rows_##dtype, \
                   reduce_rows_tasks, run_reduce_##dtype);

#define PYEDGE_REDUCE_KERNELS(isa)            \
  PYEDGE_REDUCE_KERNEL(reduce_mean, f32, isa) \
  PYEDGE_REDUCE_KERNEL(reduce_mean, i8, isa)  \
  PYEDGE_REDUCE_KERNEL(reduce_sum, f32, isa)  \
  PYEDGE_REDUCE_KERNEL(reduce_sum, i8, isa)
