// The INT8 probe over an instruction that multiplies 16 signed bytes with 16 others and adds to
// four sums. Internal linkage: every file that includes this gets its own copy, compiled for its
// own instruction set.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

namespace pyedge {
namespace {

volatile int8_t i8_source = 3;
volatile int32_t i32_sink = 0;

// Operations of so many rounds; `add(sum, a, b)` makes kMultiplyAdds multiply-adds.
template <size_t kMultiplyAdds, class Add>
double add_products(size_t rounds, Add add) {
  constexpr size_t kSums = 16;  // four pipes times a latency of four at most
  int32x4_t sum_i32x4[kSums];
  for (size_t i = 0; i < kSums; ++i) sum_i32x4[i] = vdupq_n_s32(i8_source);
  const int8x16_t a_i8x16 = vdupq_n_s8(i8_source), b_i8x16 = vdupq_n_s8(i8_source);
  for (size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (size_t i = 0; i < kSums; ++i) sum_i32x4[i] = add(sum_i32x4[i], a_i8x16, b_i8x16);
  }
  for (size_t i = 0; i < kSums; ++i) i32_sink = i32_sink ^ vgetq_lane_s32(sum_i32x4[i], 0);
  return 2.0 * static_cast<double>(kMultiplyAdds * rounds * kSums);
}

}  // namespace
}  // namespace pyedge
