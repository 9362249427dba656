// Resizing of NHWC images as ONNX defines it, with coordinates in float as ONNX Runtime has them.
//
// The scale is out / in where the output size is given, else the attribute. Nearest copies; i8
// requantizes where the quantizations differ. Linear clamps the coordinate to the image:
//   top = x00 + (x01 - x00) * wx, bottom = x10 + (x11 - x10) * wx,
//   y = top + (bottom - top) * wy; i8 does so with float(q - z_x), then requantizes with
//   ratio = float(s_x / s_y).
#pragma once

#include <cmath>

#include "kernels/common.h"

namespace pyedge {

enum ResizeMode { kNearest, kLinear };
enum ResizeCoordinates { kHalfPixel, kAsymmetric, kAlignCorners, kPytorchHalfPixel };
enum ResizeRounding { kFloor, kCeil, kRoundPreferFloor, kRoundPreferCeil };

bool accepts_resize(const OpArgs& args);
size_t resize_tasks(const OpArgs& args);  // one for each row of the output

// One spatial axis.
struct ResizeAxis {
  int32_t in, out;
  float scale;
  int32_t coordinates, rounding;
};
ResizeAxis resize_axis(const OpArgs& args, int axis);  // 1 height, 2 width

int32_t nearest_index(const ResizeAxis& axis, int32_t out_index);

// The value between two neighbours: first + (second - first) * weight.
struct LinearIndex {
  int32_t first, second;
  float weight;
};
LinearIndex linear_index(const ResizeAxis& axis, int32_t out_index);

}  // namespace pyedge
