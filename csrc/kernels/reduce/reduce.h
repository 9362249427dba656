// Sum, mean and L2 norm over any axes.
//
// f32: the sum (of squares, for L2) is taken in double, in row-major order of the reduced axes;
//   sum, sum / count or sqrt(sum), rounded to float once.
// i8 (sum, mean): the sum of q - z_x is exact; requantize(float(sum) * ratio) with ratio =
//   float(s_x / s_y), and float(s_x / (s_y * count)) for the mean.
#pragma once

#include "kernels/common.h"

namespace pyedge {

bool accepts_reduce_f32(const OpArgs& args);
bool accepts_reduce_i8(const OpArgs& args);

}  // namespace pyedge
