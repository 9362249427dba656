// transpose: the axis i of the output is the axis perm[i] of the input. The quantization stays.
#pragma once

#include "kernels/common.h"

namespace pyedge {

bool accepts_transpose_f32(const OpArgs& args);
bool accepts_transpose_i8(const OpArgs& args);

}  // namespace pyedge
