// Joins tensors along an axis. i8 inputs whose quantization differs from the output's are
// requantized: requantize(float(q - z_x) * float(s_x / s_y)).
#pragma once

#include "kernels/common.h"

namespace pyedge {

bool accepts_concat(const OpArgs& args);

// The output is `outer` rows of one run of elements from each input; a task is a block of rows.
struct ConcatGeometry {
  size_t outer, row_elements, task_rows;
};
ConcatGeometry concat_geometry(const OpArgs& args);
size_t concat_tasks(const OpArgs& args);

}  // namespace pyedge
