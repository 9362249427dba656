// transpose: the axis i of the output is the axis perm[i] of the input. The quantization stays.
#pragma once

#include "kernels/common.h"

namespace pyedge {

bool accepts_transpose_f32(const OpArgs& args);
bool accepts_transpose_i8(const OpArgs& args);

// A transposition as tiles: elements (u, i) with
//   y[u * y_stride_u + i] = x[u + i * x_stride_i],
// where u runs along the axis that is contiguous in the input and i along the one that is in the
// output. Where those are the same axis a tile is a run that is copied: `u` is 1 long.
struct TransposePlan {
  int rank;  // of the outer axes, which a tile does not cover
  size_t dims[kMaxRank], x_strides[kMaxRank], y_strides[kMaxRank];
  size_t u, i, y_stride_u, x_stride_i;
  size_t tile_u, tile_i;
};
TransposePlan transpose_plan(const OpArgs& args);

struct TransposeTile {
  size_t x, y;  // offsets of its first element
  size_t u, i;  // its size
};
TransposeTile transpose_tile(const TransposePlan& plan, size_t task);
size_t transpose_tasks(const OpArgs& args);

}  // namespace pyedge
