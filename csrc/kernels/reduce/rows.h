// Sum and mean over neighbouring axes with channels behind them, as over the plane of NHWC: the
// input is [outer, rows, channels], and channels are summed side by side.
#pragma once

#include "kernels/reduce/reduce.h"

namespace pyedge {

struct ReduceRows {
  size_t outer, channels;
  int32_t rows;
};
ReduceRows reduce_rows(const OpArgs& args);

bool accepts_reduce_rows_f32(const OpArgs& args);
bool accepts_reduce_rows_i8(const OpArgs& args);

// A task is one of `outer` and a block of channels.
constexpr size_t kReduceChannels = 128;
size_t reduce_rows_tasks(const OpArgs& args);

}  // namespace pyedge
