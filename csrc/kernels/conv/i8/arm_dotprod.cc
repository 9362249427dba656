// INT8 convolution on sdot: four products of signed bytes are added to each int32 lane, without
// saturation. Activations go in as they are, and the accumulator begins at -zero_point * sum(w).
//
// Exact: the true sum fits in int32 (validation bounds the taps), and in between sums are taken
// modulo 2^32.
#include "kernels/conv/i8/arm_finish.h"

namespace pyedge {
namespace {

constexpr size_t kSdotSteps = 8;  // in a round of the loop

// clang-format off
#define SDOT(sum, w, a, lane) "sdot v" #sum ".4s, v" #w ".16b, v" #a ".4b[" #lane "]\n"
// The 16 channels of a step, weights w0 to w3, for one pixel.
#define SDOT_PIXEL(s0, s1, s2, s3, w0, w1, w2, w3, a, lane) \
  SDOT(s0, w0, a, lane) SDOT(s1, w1, a, lane) SDOT(s2, w2, a, lane) SDOT(s3, w3, a, lane)
#define SDOT_STEP(w0, w1, w2, w3, a0, a1, a2, a3, lane) \
  SDOT_PIXEL(16, 17, 18, 19, w0, w1, w2, w3, a0, lane)  \
  SDOT_PIXEL(20, 21, 22, 23, w0, w1, w2, w3, a1, lane)  \
  SDOT_PIXEL(24, 25, 26, 27, w0, w1, w2, w3, a2, lane)  \
  SDOT_PIXEL(28, 29, 30, 31, w0, w1, w2, w3, a3, lane)

#define FINISH_TILE(residual, slope, odd)                     \
  FINISH_CONSTANTS                                            \
  FINISH_PIXEL(16, 17, 18, 19, y_step1, residual, slope, odd) \
  FINISH_PIXEL(20, 21, 22, 23, y_step2, residual, slope, odd) \
  FINISH_PIXEL(24, 25, 26, 27, y_step3, residual, slope, odd) \
  FINISH_PIXEL(28, 29, 30, 31, y_step, residual, slope, odd)
#define STORE_TILE                                            \
  "st1 {v16.4s-v19.4s}, [%[y]], #64\n"                       \
  "st1 {v20.4s-v23.4s}, [%[y]], #64\n"                       \
  "st1 {v24.4s-v27.4s}, [%[y]], #64\n"                       \
  "st1 {v28.4s-v31.4s}, [%[y]], #64\n"

// Sums of four pixels and 16 channels in v16 to v31, then what becomes of them. In assembly, as
// every register is taken and compilers, given the same order, spill. Weights are loaded a step
// ahead of their use.
#define TILES(finish)                                                         \
  [](ArmTiles t) {                                                            \
    t.end_at_last();                                                                \
    do {                                                                      \
      const int8_t *w = t.w, *r0 = t.row, *r1 = r0 + t.row_step1;          \
      const int8_t *r2 = r1 + t.row_step2, *r3 = r2 + t.row_step3;      \
      size_t left = t.rounds;                                                 \
      __asm__ volatile(                                                       \
      "ld1 {v16.4s-v19.4s}, [%[initial]]\n"                                   \
      "ld1 {v20.4s-v23.4s}, [%[initial]]\n"                                   \
      "ld1 {v24.4s-v27.4s}, [%[initial]]\n"                                   \
      "ld1 {v28.4s-v31.4s}, [%[initial]]\n"                                   \
      "1:\n"                                                                  \
      "ld1 {v0.16b-v3.16b}, [%[w]], #64\n"                                    \
      "ldp q8, q12, [%[r0]], #32\n"                                           \
      "ldp q9, q13, [%[r1]], #32\n"                                           \
      SDOT_PIXEL(16, 17, 18, 19, 0, 1, 2, 3, 8, 0)                            \
      "ldp q10, q14, [%[r2]], #32\n"                                          \
      SDOT_PIXEL(20, 21, 22, 23, 0, 1, 2, 3, 9, 0)                            \
      "ldp q11, q15, [%[r3]], #32\n"                                          \
      "ld1 {v4.16b-v7.16b}, [%[w]], #64\n"                                    \
      SDOT_PIXEL(24, 25, 26, 27, 0, 1, 2, 3, 10, 0)                           \
      SDOT_PIXEL(28, 29, 30, 31, 0, 1, 2, 3, 11, 0)                           \
      "ld1 {v0.16b-v3.16b}, [%[w]], #64\n"                                    \
      SDOT_STEP(4, 5, 6, 7, 8, 9, 10, 11, 1)                                  \
      "ld1 {v4.16b-v7.16b}, [%[w]], #64\n"                                    \
      SDOT_STEP(0, 1, 2, 3, 8, 9, 10, 11, 2)                                  \
      "ld1 {v0.16b-v3.16b}, [%[w]], #64\n"                                    \
      SDOT_STEP(4, 5, 6, 7, 8, 9, 10, 11, 3)                                  \
      "ld1 {v4.16b-v7.16b}, [%[w]], #64\n"                                    \
      SDOT_STEP(0, 1, 2, 3, 12, 13, 14, 15, 0)                                \
      "ld1 {v0.16b-v3.16b}, [%[w]], #64\n"                                    \
      SDOT_STEP(4, 5, 6, 7, 12, 13, 14, 15, 1)                                \
      "ld1 {v4.16b-v7.16b}, [%[w]], #64\n"                                    \
      SDOT_STEP(0, 1, 2, 3, 12, 13, 14, 15, 2)                                \
      "subs %[left], %[left], #1\n"                                           \
      SDOT_STEP(4, 5, 6, 7, 12, 13, 14, 15, 3)                                \
      "b.ne 1b\n"                                                             \
      finish                                                                  \
      : [w] "+&r"(w), [r0] "+&r"(r0), [r1] "+&r"(r1), [r2] "+&r"(r2), [r3] "+&r"(r3),         \
        [left] "+&r"(left), [y] "+&r"(t.y), [residual] "+&r"(t.residual)      \
      : [initial] "r"(t.channels.initial), FINISH_INPUTS(t), [y_step1] "r"(t.y_step1),     \
        [y_step2] "r"(t.y_step2), [y_step3] "r"(t.y_step3)              \
      : ALL_VECTORS);                                                         \
    } while (t.next());                                                       \
  },
#define FINISHED_TILES(residual, slope, odd) TILES(FINISH_TILE(residual, slope, odd))
constexpr void (*kSdotTiles[])(ArmTiles) = {ARM_FINISH_VARIANTS(FINISHED_TILES) TILES(STORE_TILE)};
#undef SDOT
#undef SDOT_PIXEL
#undef SDOT_STEP
// clang-format on

struct Dot : Neon {
  static constexpr auto& kTiles = kSdotTiles;
  static constexpr size_t kRoundSteps = kSdotSteps;
  static constexpr size_t kGroup = 4;
  static constexpr I8Packing kPacking = I8Packing::plain;
  static constexpr size_t kDepthwisePixels = 2;

  static Int load_weights(const int8_t* p) { return vreinterpretq_s32_s8(vld1q_s8(p)); }
  static Int in_register(Int x) { return x; }
  static Int dot(Int acc, Int a, Int w) {
    return vdotq_s32(acc, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(w));
  }
  static Int packed_zero_point(int32_t zero_point) {
    return vreinterpretq_s32_s8(vdupq_n_s8(static_cast<int8_t>(zero_point)));
  }
  static void interleave(const int8_t* const* pixels, int32_t, Int* column) {
    const int8x16_t a = vld1q_s8(pixels[0]), b = vld1q_s8(pixels[1]);
    const int8x16_t c = vld1q_s8(pixels[2]), d = vld1q_s8(pixels[3]);
    const int16x8_t ab_low = vreinterpretq_s16_s8(vzip1q_s8(a, b));
    const int16x8_t ab_high = vreinterpretq_s16_s8(vzip2q_s8(a, b));
    const int16x8_t cd_low = vreinterpretq_s16_s8(vzip1q_s8(c, d));
    const int16x8_t cd_high = vreinterpretq_s16_s8(vzip2q_s8(c, d));
    column[0] = vreinterpretq_s32_s16(vzip1q_s16(ab_low, cd_low));
    column[1] = vreinterpretq_s32_s16(vzip2q_s16(ab_low, cd_low));
    column[2] = vreinterpretq_s32_s16(vzip1q_s16(ab_high, cd_high));
    column[3] = vreinterpretq_s32_s16(vzip2q_s16(ab_high, cd_high));
  }
};

constexpr size_t kMaxOutRows = 2;

// Finishes four pixels of four channels.
template <I8Slope kSlope, bool kClamps>
struct FinishColumns {
  float32x4_t scale, bias, slope, lo, hi;
  int16x8_t zero_point;

  FinishColumns(const I8Finish& f, const I8Channels& c, size_t first)
      : scale(vld1q_f32(c.scale + first)),
        bias(vld1q_f32(c.bias + first)),
        slope(vld1q_f32(c.slope + first)),
        lo(vdupq_n_f32(f.lo)),
        hi(vdupq_n_f32(f.hi)),
        zero_point(vdupq_n_s16(static_cast<int16_t>(f.zero_point))) {}

  int8x16_t operator()(const int32x4_t* sums) const {
    int32x4_t q[4];
    for (size_t i = 0; i < 4; ++i) {
      float32x4_t y = vfmaq_f32(bias, vcvtq_f32_s32(sums[i]), scale);
      if (kSlope == I8Slope::max) y = Dot::prelu_max(y, slope);
      if (kSlope == I8Slope::select) y = Dot::prelu(y, slope);
      if (kClamps) y = Dot::clamp(y, lo, hi);
      q[i] = Dot::round(y);
    }
    return Dot::narrow(q, zero_point);
  }
};

constexpr size_t kTapBytes = kArmBlock * Dot::kGroup;  // of weights

// A strip of outputs, [out_rows][tiles][four vectors][four pixels][four lanes].
struct Strip {
  static constexpr size_t kTileBytes = 4 * kArmBlock, kRowBytes = kI8Strip * kArmBlock;

  const I8DepthwiseRow& row;
  const I8Finish& f;
  size_t tiles;  // of four pixels
  size_t step;   // in int32, from one output's first column to the next
  int8_t* outputs;
};

// Three taps in one group of rows: neighbouring outputs, of both rows, share the columns they load.
template <int kStride, size_t kRows, class Finish>
void three_taps(const Strip& strip, size_t v, const Finish& finish, int32x4_t initial) {
  constexpr size_t kColumns = 3 * kStride + 3;
  const int8_t* w = strip.row.w + v * 16;
  int32x4_t weights[kRows][3];
  for (size_t i = 0; i < 3 * kRows; ++i)
    weights[i / 3][i % 3] = Dot::load_weights(w + i * kTapBytes);
  const int32_t* columns = strip.row.columns + v * Dot::kLanes;
  int8_t *to = strip.outputs + v * 16, *const end = to + strip.tiles * Strip::kTileBytes;
  for (; to != end; to += Strip::kTileBytes, columns += 4 * kStride * kArmBlock) {
    int32x4_t column[kColumns];
    for (size_t i = 0; i < kColumns; ++i) column[i] = Dot::load(columns + i * kArmBlock);
    for (size_t r = 0; r < kRows; ++r) {
      int32x4_t acc[4] = {initial, initial, initial, initial};
      for (size_t tap = 0; tap < 3; ++tap) {
        for (size_t i = 0; i < 4; ++i) {
          acc[i] = Dot::dot(acc[i], column[i * kStride + tap], weights[r][tap]);
        }
      }
      vst1q_s8(to + r * Strip::kRowBytes, finish(acc));
    }
  }
}

template <class Finish>
void any_taps(const Strip& strip, size_t v, const Finish& finish, int32x4_t initial) {
  const I8DepthwiseRow& row = strip.row;
  for (size_t r = 0; r < row.out_rows; ++r) {
    const int32_t* columns = row.columns + v * Dot::kLanes;
    int8_t* to = strip.outputs + r * Strip::kRowBytes + v * 16;
    for (size_t tile = 0; tile < strip.tiles; ++tile, columns += 4 * strip.step) {
      int32x4_t acc[4] = {initial, initial, initial, initial};
      const int8_t* w = row.w + r * row.taps * kTapBytes + v * 16;
      for (size_t tap = 0; tap < row.taps; ++tap, w += kTapBytes) {
        const int32x4_t weights = Dot::load_weights(w);
        const int32_t* a = columns + row.tap_offsets[tap];
        for (size_t i = 0; i < 4; ++i) {
          acc[i] = Dot::dot(acc[i], Dot::load(a + i * strip.step), weights);
        }
      }
      vst1q_s8(to + tile * Strip::kTileBytes, finish(acc));
    }
  }
}

template <class Finish>
void finish_strip(const Strip& strip) {
  const I8DepthwiseRow& row = strip.row;
  const bool three = row.kernel_w == 3 && row.row_groups == 1 && row.dilation_w == 1;
  for (size_t v = 0; v < kI8BlockVectors; ++v) {
    const Finish finish(strip.f, row.channels, v * Dot::kLanes);
    const int32x4_t initial = Dot::load(row.channels.initial + v * Dot::kLanes);
    if (three && row.stride_w == 1 && row.out_rows == 2) {
      three_taps<1, 2>(strip, v, finish, initial);
    } else if (three && row.stride_w == 2 && row.out_rows == 1) {
      three_taps<2, 1>(strip, v, finish, initial);
    } else {
      any_taps(strip, v, finish, initial);
    }
  }
}

// Lane i of the four vectors of a tile is pixel i.
void store_tile(int32x4x4_t q, size_t pixels, size_t stride, int8_t* y) {
  vst4q_lane_s32(reinterpret_cast<int32_t*>(y), q, 0);
  if (pixels > 1) vst4q_lane_s32(reinterpret_cast<int32_t*>(y + stride), q, 1);
  if (pixels > 2) vst4q_lane_s32(reinterpret_cast<int32_t*>(y + 2 * stride), q, 2);
  if (pixels > 3) vst4q_lane_s32(reinterpret_cast<int32_t*>(y + 3 * stride), q, 3);
}

void store_row(const int8_t* outputs, size_t pixels, size_t channels, size_t stride, int8_t* y) {
  for (size_t first = 0; first < pixels; first += 4, outputs += Strip::kTileBytes) {
    const int32x4x4_t q = vld1q_s32_x4(reinterpret_cast<const int32_t*>(outputs));
    const size_t count = pixels - first < 4 ? pixels - first : 4;
    if (channels == kArmBlock) {
      store_tile(q, count, stride, y + first * stride);
      continue;
    }
    int8_t tile[Strip::kTileBytes];
    store_tile(q, 4, kArmBlock, tile);
    for (size_t i = 0; i < count; ++i) {
      __builtin_memcpy(y + (first + i) * stride, tile + i * kArmBlock, channels);
    }
  }
}

// Lanes are channels in the sums and pixels in the strip: the constants of four channels stay in
// registers, and neighbouring outputs share the columns they load.
void dot_depthwise_row(const I8DepthwiseRow& row, const I8Finish& f) {
  if (f.f32 || f.residual != nullptr || f.activation.kind != Activation::kNone) {
    depthwise_row<Dot>(row, f);
    return;
  }
  const int32_t span = (row.kernel_w - 1) * row.dilation_w + 1;
  alignas(16) int8_t outputs[kMaxOutRows * Strip::kRowBytes];
  for (int32_t begin = 0; begin < row.out_w; begin += kI8Strip) {
    const int32_t end = row.out_w - begin < kI8Strip ? row.out_w : begin + kI8Strip;
    const size_t pixels = static_cast<size_t>(end - begin);
    build_columns<Dot>(row, begin * row.stride_w - row.pad_left,
                       (end - 1) * row.stride_w - row.pad_left + span, row.columns);
    const Strip strip{row, f, (pixels + 3) / 4,
                      static_cast<size_t>(row.stride_w) * row.row_groups * kArmBlock, outputs};
    if (f.has_slope && (f.clamps || !f.slope_is_max)) {
      finish_strip<FinishColumns<I8Slope::select, true>>(strip);
    } else if (f.has_slope) {
      finish_strip<FinishColumns<I8Slope::max, false>>(strip);
    } else if (f.clamps) {
      finish_strip<FinishColumns<I8Slope::none, true>>(strip);
    } else {
      finish_strip<FinishColumns<I8Slope::none, false>>(strip);
    }
    for (size_t r = 0; r < row.out_rows; ++r) {
      const size_t pixel = r * static_cast<size_t>(row.out_w) + static_cast<size_t>(begin);
      store_row(outputs + r * Strip::kRowBytes, pixels, row.channel_count, f.y_stride,
                static_cast<int8_t*>(f.y) + row.at + pixel * f.y_stride);
    }
  }
}

template <>
constexpr I8Depthwise kDepthwise<Dot> = {{Dot::kLanes, Dot::kGroup, Dot::kPacking, Dot::kExact},
                                         dot_depthwise_row};

template <>
constexpr I8Dense kDense<Dot> = {{Dot::kLanes, Dot::kGroup, Dot::kPacking, Dot::kExact},
                                 kI8BlockVectors,
                                 kArmTilePixels,
                                 kArmTilePixels,
                                 kSdotSteps,
                                 1,
                                 true,
                                 Dot::pack,
                                 nullptr,
                                 arm_dense_panel<Dot>};

}  // namespace

extern const Kernel conv_i8_dotprod = i8_dense_kernel<Dot, Dot>("conv_i8_dotprod", Isa::dotprod);
extern const Kernel conv_i8_depthwise_dotprod =
    i8_depthwise_kernel<Dot, Dot>("conv_i8_depthwise_dotprod", Isa::dotprod);

}  // namespace pyedge
