// add, sub, mul, div with NumPy broadcasting, then a clamp to [act_min, act_max].
//
// f32: clamp(a op b, act_min, act_max).
// i8, with a' = a - z_a and b' = b - z_b, in output steps, then requantize:
//   add  fma(float(a'), float(s_a / s_y), float(b') * float(s_b / s_y))
//   sub  fma(float(a'), float(s_a / s_y), -(float(b') * float(s_b / s_y)))
//   mul  float(a' * b') * float(s_a * s_b / s_y)
//   div  float(a') / float(b') * float(s_a / s_b / s_y); a zero divisor gives the bound that
//        lies in the direction of a', and zero where a' is zero too
// mixed (add, sub, mul): operands and result are each f32 or i8, not all of one type. i8 operands
//   are dequantized, the f32 formula follows, an i8 result is quantized: the bytes that nodes of
//   their own would give.
#pragma once

#include <cmath>

#include "kernels/common.h"

namespace pyedge {

bool accepts_binary_f32(const OpArgs& args);
bool accepts_binary_i8(const OpArgs& args);
bool accepts_binary_mixed(const OpArgs& args);

// What the i8 formulas need besides the elements.
struct BinaryI8 {
  float scale_a, scale_b;  // mul and div have only the first
  float lo, hi;
  int32_t zero_a, zero_b, zero_y;
};
BinaryI8 binary_i8(const OpArgs& args);

// The same walk with as few axes as possible: neighbours along which both operands go on evenly
// are one. The innermost stride of an operand is 1, or 0 where it stays.
struct BinaryPlan {
  int rank;  // at least 1
  size_t dims[kMaxRank];
  size_t stride_a[kMaxRank], stride_b[kMaxRank];
};
BinaryPlan binary_plan(const OpArgs& args);

// The strides of an input seen in the shape of the output: 0 along broadcast axes.
Strides broadcast_strides(const Shape& in, const Shape& out);

namespace {

// An operand of the output's size is not broadcast: element i of it makes element i of the output.
constexpr uint32_t kBinaryInPlace = 1u << 0 | 1u << 1;

template <Op op>
inline float combine(float a, float b) {
  if constexpr (op == Op::k_add) return a + b;
  if constexpr (op == Op::k_sub) return a - b;
  if constexpr (op == Op::k_mul) return a * b;
  return a / b;
}

template <Op op>
inline int8_t combine(int8_t a, int8_t b, const BinaryI8& p) {
  const int32_t steps_a = a - p.zero_a, steps_b = b - p.zero_b;
  const float x = static_cast<float>(steps_a), z = static_cast<float>(steps_b);
  float y;
  if constexpr (op == Op::k_add) {
    y = std::fmaf(x, p.scale_a, z * p.scale_b);
  } else if constexpr (op == Op::k_sub) {
    y = std::fmaf(x, p.scale_a, -(z * p.scale_b));
  } else if constexpr (op == Op::k_mul) {
    y = static_cast<float>(steps_a * steps_b) * p.scale_a;
  } else {
    const float bound = x > 0.0f ? p.hi : x < 0.0f ? p.lo : 0.0f;
    y = z != 0.0f ? x / z * p.scale_a : bound;
  }
  return requantize(y, p.lo, p.hi, p.zero_y);
}

// An element of a mixed operation as a real number, and the other way.
struct MixedOperand {
  float scale;
  int32_t zero_point;

  float operator()(float x) const { return x; }
  float operator()(int8_t q) const { return dequantize(q, scale, zero_point); }
};
struct MixedResult {
  float reciprocal_scale, lo, hi;
  int32_t zero_point;

  void store(float y, float* to) const { *to = clamp(y, lo, hi); }
  void store(float y, int8_t* to) const {
    *to = quantize(clamp(y, lo, hi), reciprocal_scale, zero_point);
  }
};

inline MixedOperand mixed_operand(const TensorView& x) {
  return {x.quant.scale, x.quant.zero_point};
}
inline MixedResult mixed_result(const OpArgs& args) {
  const TensorView& y = args.outputs[0];
  return {y.dtype == DType::kI8 ? reciprocal(y.quant.scale) : 0.0f, args.floats[0], args.floats[1],
          y.quant.zero_point};
}

// Calls use(a, b, y) with null pointers of the types of operands and result.
template <typename Use>
inline void with_mixed_types(const OpArgs& args, Use use) {
  const bool a = args.inputs[0].dtype == DType::kI8, b = args.inputs[1].dtype == DType::kI8;
  const bool y = args.outputs[0].dtype == DType::kI8;
  constexpr const float* kF32 = nullptr;
  constexpr const int8_t* kI8 = nullptr;
  if (a && b) {
    use(kI8, kI8, kF32);
  } else if (a) {
    y ? use(kI8, kF32, kI8) : use(kI8, kF32, kF32);
  } else if (b) {
    y ? use(kF32, kI8, kI8) : use(kF32, kI8, kF32);
  } else {
    use(kF32, kF32, kI8);
  }
}

}  // namespace
}  // namespace pyedge
