// quantize: f32 to i8 with the output's scale and zero point; dequantize: i8 to f32 with the
// input's. The formulas are those of numerics.h.
#pragma once

#include "kernels/common.h"

namespace pyedge {

bool accepts_quantize(const OpArgs& args);
bool accepts_dequantize(const OpArgs& args);

}  // namespace pyedge
