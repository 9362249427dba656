// From the sums of a block to bytes in assembly: what finish.h does for an int8 output of 16
// channels where no clamp is needed and PReLU is a maximum, which is nearly always. A compiler
// copies the bias that fmla overwrites, and spills where a tile takes every register.
#pragma once

#include "kernels/conv/i8/arm_vector.h"

namespace pyedge {
namespace {

// Bits of a float past 2^23 count in steps of one; an even zero point goes in without changing
// which way halves are rounded, so that half of all layers need not add it to the bytes.
struct ArmFinish {
  float magic[4];
  int16_t odd[8];  // what remains of the zero point: 0 or 1
  float residual_scale[4];
  int8_t residual_zero_point[16];

  explicit ArmFinish(const I8Finish& f) {
    const int32_t remains = f.zero_point & 1;
    vst1q_f32(magic, vdupq_n_f32(12582912.0f + static_cast<float>(f.zero_point - remains)));
    vst1q_s16(odd, vdupq_n_s16(static_cast<int16_t>(remains)));
    vst1q_f32(residual_scale, vdupq_n_f32(f.residual_scale));
    vst1q_s8(residual_zero_point, vdupq_n_s8(static_cast<int8_t>(f.residual_zero_point)));
  }

  static constexpr size_t kVariants = 8;
  // Which of ARM_FINISH_VARIANTS, or kVariants where none of them does.
  static size_t variant(const I8Finish& f, size_t channel_count) {
    if (f.f32 || f.clamps || (f.has_slope && !f.slope_is_max) ||
        f.activation.kind != Activation::kNone || channel_count != kArmBlock) {
      return kVariants;
    }
    return (f.residual ? 4u : 0u) + (f.has_slope ? 2u : 0u) + (f.zero_point & 1);
  }
};

// clang-format off
#define ARM_FINISH_VARIANTS(ROW)                                  \
  ROW(NO_RESIDUAL, NO_SLOPE, NO_ODD) ROW(NO_RESIDUAL, NO_SLOPE, ADD_ODD)   \
  ROW(NO_RESIDUAL, MAX_SLOPE, NO_ODD) ROW(NO_RESIDUAL, MAX_SLOPE, ADD_ODD) \
  ROW(RESIDUAL, NO_SLOPE, NO_ODD) ROW(RESIDUAL, NO_SLOPE, ADD_ODD)         \
  ROW(RESIDUAL, MAX_SLOPE, NO_ODD) ROW(RESIDUAL, MAX_SLOPE, ADD_ODD)

// Into v4 to v15.
#define FINISH_CONSTANTS                                          \
  "ld1 {v4.4s-v7.4s}, [%[scale]]\n"                                \
  "ld1 {v8.4s-v11.4s}, [%[slope]]\n"                               \
  "ld1 {v12.4s-v15.4s}, [%[constants]]\n"

#define CONVERT(x0, x1, x2, x3, from0, from1, from2, from3)        \
  "scvtf v" #x0 ".4s, v" #from0 ".4s\n"                             \
  "scvtf v" #x1 ".4s, v" #from1 ".4s\n"                             \
  "scvtf v" #x2 ".4s, v" #from2 ".4s\n"                             \
  "scvtf v" #x3 ".4s, v" #from3 ".4s\n"
// A pixel with its sums in v`x0` to v`x3`, or as floats there. Changes those and v0 to v3.
#define FINISH_PIXEL(x0, x1, x2, x3, step, residual, slope, odd)  \
  CONVERT(x0, x1, x2, x3, x0, x1, x2, x3)                          \
  FINISH_FLOATS(x0, x1, x2, x3, step, residual, slope, odd)
#define FINISH_FLOATS(x0, x1, x2, x3, step, residual, slope, odd) \
  "ld1 {v0.4s-v3.4s}, [%[bias]]\n"                                 \
  "fmla v0.4s, v" #x0 ".4s, v4.4s\n"                               \
  "fmla v1.4s, v" #x1 ".4s, v5.4s\n"                               \
  "fmla v2.4s, v" #x2 ".4s, v6.4s\n"                               \
  "fmla v3.4s, v" #x3 ".4s, v7.4s\n"                               \
  residual(x0, x1, x2, x3, step)                                   \
  slope(x0, x1, x2, x3)                                            \
  "fadd v0.4s, v0.4s, v12.4s\n"                                    \
  "fadd v1.4s, v1.4s, v12.4s\n"                                    \
  "fadd v2.4s, v2.4s, v12.4s\n"                                    \
  "fadd v3.4s, v3.4s, v12.4s\n"                                    \
  "uzp1 v0.8h, v0.8h, v1.8h\n"                                     \
  "uzp1 v2.8h, v2.8h, v3.8h\n"                                     \
  odd                                                              \
  "sqxtn v0.8b, v0.8h\n"                                           \
  "sqxtn2 v0.16b, v2.8h\n"                                         \
  "st1 {v0.16b}, [%[y]], %[" #step "]\n"
#define NO_RESIDUAL(x0, x1, x2, x3, step) ""
#define RESIDUAL(x0, x1, x2, x3, step)                            \
  "ld1 {v" #x0 ".16b}, [%[residual]], %[" #step "]\n"              \
  "ssubl v" #x1 ".8h, v" #x0 ".8b, v15.8b\n"                       \
  "ssubl2 v" #x3 ".8h, v" #x0 ".16b, v15.16b\n"                    \
  "sxtl v" #x0 ".4s, v" #x1 ".4h\n"                                \
  "sxtl v" #x2 ".4s, v" #x3 ".4h\n"                                \
  "sxtl2 v" #x1 ".4s, v" #x1 ".8h\n"                               \
  "sxtl2 v" #x3 ".4s, v" #x3 ".8h\n"                               \
  "scvtf v" #x0 ".4s, v" #x0 ".4s\n"                               \
  "scvtf v" #x1 ".4s, v" #x1 ".4s\n"                               \
  "scvtf v" #x2 ".4s, v" #x2 ".4s\n"                               \
  "scvtf v" #x3 ".4s, v" #x3 ".4s\n"                               \
  "fmla v0.4s, v" #x0 ".4s, v14.4s\n"                              \
  "fmla v1.4s, v" #x1 ".4s, v14.4s\n"                              \
  "fmla v2.4s, v" #x2 ".4s, v14.4s\n"                              \
  "fmla v3.4s, v" #x3 ".4s, v14.4s\n"
#define NO_SLOPE(x0, x1, x2, x3) ""
#define MAX_SLOPE(x0, x1, x2, x3)                                 \
  "fmul v" #x0 ".4s, v0.4s, v8.4s\n"                               \
  "fmul v" #x1 ".4s, v1.4s, v9.4s\n"                               \
  "fmul v" #x2 ".4s, v2.4s, v10.4s\n"                              \
  "fmul v" #x3 ".4s, v3.4s, v11.4s\n"                              \
  "fmax v0.4s, v0.4s, v" #x0 ".4s\n"                               \
  "fmax v1.4s, v1.4s, v" #x1 ".4s\n"                               \
  "fmax v2.4s, v2.4s, v" #x2 ".4s\n"                               \
  "fmax v3.4s, v3.4s, v" #x3 ".4s\n"
#define NO_ODD ""
#define ADD_ODD                                                       \
  "add v0.8h, v0.8h, v13.8h\n"                                     \
  "add v2.8h, v2.8h, v13.8h\n"

#define FINISH_INPUTS(t)                                                                      \
  [scale] "r"((t).channels.scale), [bias] "r"((t).channels.bias),                             \
      [slope] "r"((t).channels.slope), [constants] "r"((t).constants), [y_step] "r"((t).y_step)
#define ALL_VECTORS                                                                           \
  "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11",   \
      "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23",     \
      "v24", "v25", "v26", "v27", "v28", "v29", "v30", "v31"
// clang-format on

// Where the pixels of a panel go.
struct ArmOutput {
  I8Channels channels;
  const ArmFinish* constants;
  int8_t* y;
  const int8_t* residual;
  size_t y_step;

  ArmOutput(const I8Panel& p, const I8Finish& f, const ArmFinish* finish)
      : channels(p.channels),
        constants(finish),
        y(static_cast<int8_t*>(f.y) + p.at),
        residual(f.residual ? static_cast<const int8_t*>(f.residual) + p.at : nullptr),
        y_step(f.y_stride) {}
};

// Pixels of a panel in tiles of four, for the loops of sdot and smmla. Where the last tile misses
// pixels the steps to them are 0, and what is there takes their place.
struct ArmTiles : ArmOutput {
  const int8_t* w;
  size_t rounds;
  const int8_t* row;
  size_t tile_bytes;
  ptrdiff_t pixels;  // that are left
  size_t row_step1, row_step2, row_step3, y_step1, y_step2, y_step3;

  ArmTiles(const I8Panel& p, size_t round_steps, const I8Finish& f, const ArmFinish* finish)
      : ArmOutput(p, f, finish),
        w(p.w),
        rounds(p.steps / round_steps),
        row(reinterpret_cast<const int8_t*>(p.rows)),
        tile_bytes(kArmTilePixels * p.row_bytes),
        pixels(static_cast<ptrdiff_t>(p.pixels)) {
    row_step1 = row_step2 = row_step3 = p.row_bytes;
    y_step1 = y_step2 = y_step3 = y_step;
  }

  void end_at_last() {
    if (pixels < 2) row_step1 = y_step1 = 0;
    if (pixels < 3) row_step2 = y_step2 = 0;
    if (pixels < 4) row_step3 = y_step3 = 0;
  }
  // Whether there is another tile.
  bool next() {
    constexpr ptrdiff_t kTile = kArmTilePixels;
    pixels -= kTile, row += tile_bytes;
    if (__builtin_expect(pixels < kTile, 0)) end_at_last();
    return pixels > 0;
  }
};

// V::kTiles[variant](tiles) finishes the pixels, V::kTiles[kVariants] stores their sums.
template <class V>
void arm_dense_panel(const I8Panel& p, const I8Finish& f) {
  const ArmFinish constants(f);
  const ArmTiles all(p, V::kRoundSteps, f, &constants);
  const size_t variant = ArmFinish::variant(f, p.channel_count);
  if (variant < ArmFinish::kVariants) {
    V::kTiles[variant](all);
    return;
  }
  constexpr size_t kPixels = 4 * kArmTilePixels;
  with_finish<V>(f, p.channels, p.channel_count, [&](const auto& finish) {
    alignas(kAlignment) int32_t sums[kPixels * kArmBlock];
    const size_t y_stride = f.y_stride;
    size_t at = p.at;
    for (size_t begin = 0; begin < p.pixels; begin += kPixels) {
      ArmTiles some = all;
      some.row += begin * p.row_bytes;
      const size_t count = p.pixels - begin < kPixels ? p.pixels - begin : kPixels;
      some.pixels = static_cast<ptrdiff_t>(count);
      some.y = reinterpret_cast<int8_t*>(sums);
      V::kTiles[ArmFinish::kVariants](some);
      for (size_t i = 0; i < count; ++i, at += y_stride) {
        finish(vld1q_s32_x4(sums + i * kArmBlock).val, at);
      }
    }
  });
}

}  // namespace
}  // namespace pyedge
