// Functions of one tensor, element by element: y = f(x) with f from numerics.h.
//
// i8: table[q] = quantize(f(dequantize(q, s_x, z_x)), reciprocal(s_y), z_y), 256 entries made
//   when the model is loaded.
// prelu i8, whose slope differs by channel: y = float(q - z_x) * float(s_x / s_y);
//   y < 0 ? y * slope[c] : y; then requantize.
#pragma once

#include "kernels/common.h"

namespace pyedge {

bool accepts_unary_f32(const OpArgs& args);
bool accepts_prelu_f32(const OpArgs& args);
bool accepts_prelu_i8(const OpArgs& args);

namespace {

constexpr uint32_t kUnaryInPlace = 1u << 0;

inline float prelu(float x, float slope) { return x < 0.0f ? x * slope : x; }

}  // namespace
}  // namespace pyedge
