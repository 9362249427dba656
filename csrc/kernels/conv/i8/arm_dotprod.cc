// INT8 convolution on sdot: four products of signed bytes are added to each int32 lane, without
// saturation. Activations go in as they are, and the accumulator begins at -zero_point * sum(w).
//
// Exact: the true sum fits in int32 (validation bounds the taps), and in between sums are taken
// modulo 2^32.
#include "kernels/conv/i8/arm_depthwise.h"
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

// 32 products of each sum. Weights are loaded a step ahead of their use.
#define SDOT_ROUND \
  "ld1 {v0.16b-v3.16b}, [%[w]], #64\n" \
  "ldp q8, q12, [%[r0]], #32\n" \
  "ldp q9, q13, [%[r1]], #32\n" \
  SDOT_PIXEL(16, 17, 18, 19, 0, 1, 2, 3, 8, 0) \
  "ldp q10, q14, [%[r2]], #32\n" \
  SDOT_PIXEL(20, 21, 22, 23, 0, 1, 2, 3, 9, 0) \
  "ldp q11, q15, [%[r3]], #32\n" \
  "ld1 {v4.16b-v7.16b}, [%[w]], #64\n" \
  SDOT_PIXEL(24, 25, 26, 27, 0, 1, 2, 3, 10, 0) \
  SDOT_PIXEL(28, 29, 30, 31, 0, 1, 2, 3, 11, 0) \
  "ld1 {v0.16b-v3.16b}, [%[w]], #64\n" \
  SDOT_STEP(4, 5, 6, 7, 8, 9, 10, 11, 1) \
  "ld1 {v4.16b-v7.16b}, [%[w]], #64\n" \
  SDOT_STEP(0, 1, 2, 3, 8, 9, 10, 11, 2) \
  "ld1 {v0.16b-v3.16b}, [%[w]], #64\n" \
  SDOT_STEP(4, 5, 6, 7, 8, 9, 10, 11, 3) \
  "ld1 {v4.16b-v7.16b}, [%[w]], #64\n" \
  SDOT_STEP(0, 1, 2, 3, 12, 13, 14, 15, 0) \
  "ld1 {v0.16b-v3.16b}, [%[w]], #64\n" \
  SDOT_STEP(4, 5, 6, 7, 12, 13, 14, 15, 1) \
  "ld1 {v4.16b-v7.16b}, [%[w]], #64\n" \
  SDOT_STEP(0, 1, 2, 3, 12, 13, 14, 15, 2) \
  SDOT_STEP(4, 5, 6, 7, 12, 13, 14, 15, 3)

// Sums of four pixels and 16 channels in v16 to v31, then what becomes of them. In assembly, as
// every register is taken and compilers, given the same order, spill.
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
      "tbnz %[left], #0, 2f\n"                                              \
      "1:\n"                                                                 \
      SDOT_ROUND                                                              \
      "2:\n"                                                                 \
      SDOT_ROUND                                                              \
      "subs %[left], %[left], #2\n"                                         \
      "b.gt 1b\n"                                                             \
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
#undef SDOT_ROUND
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

  // Four rows of a channel in a lane; for one row of outputs the third stands for a fourth as well.
  template <size_t kRows>
  struct Column {
    Column() = default;
    explicit Column(int8x16_t padding) : taps{padding, padding} {}
    Column(const int8_t** image, const size_t* step) {
      int8x16_t rows[kRows];
      for (size_t r = 0; r < kRows; ++r) rows[r] = load_eight(&image[r], step[r]);
      const int16x8_t ab = vreinterpretq_s16_s8(vzip1q_s8(rows[0], rows[1]));
      const int16x8_t cd = vreinterpretq_s16_s8(vzip1q_s8(rows[2], rows[kRows - 1]));
      taps[0] = vreinterpretq_s8_s16(vzip1q_s16(ab, cd));
      taps[1] = vreinterpretq_s8_s16(vzip2q_s16(ab, cd));
    }
    int8x16_t taps[2];
  };
  template <size_t kOutRows>
  struct Window {
    Window(const I8DepthwiseRows& rows, size_t first) : initial(rows.channels.initial + first) {
      const int8_t* w = rows.w + first * kGroup;
      for (size_t i = 0; i < 3 * kOutRows; ++i, w += kArmBlock * kGroup) {
        weights[i / 3][i % 3][0] = vld1q_s8(w), weights[i / 3][i % 3][1] = vld1q_s8(w + 16);
      }
    }
    template <class Columns>
    void sums(size_t row, const Columns& a, const Columns& b, const Columns& c, Int* sums) const {
      const int8x16_t(*w)[2] = weights[row];
      __asm__(
          "ldp %q0, %q1, [%[initial]]\n"
          "sdot %0.4s, %2.16b, %8.16b\n"
          "sdot %1.4s, %3.16b, %9.16b\n"
          "sdot %0.4s, %4.16b, %10.16b\n"
          "sdot %1.4s, %5.16b, %11.16b\n"
          "sdot %0.4s, %6.16b, %12.16b\n"
          "sdot %1.4s, %7.16b, %13.16b"
          : "=&w"(sums[0]), "=&w"(sums[1])
          : "w"(a.taps[0]), "w"(a.taps[1]), "w"(b.taps[0]), "w"(b.taps[1]), "w"(c.taps[0]),
            "w"(c.taps[1]), "w"(w[0][0]), "w"(w[0][1]), "w"(w[1][0]), "w"(w[1][1]), "w"(w[2][0]),
            "w"(w[2][1]), [initial] "r"(initial),
            "m"(*reinterpret_cast<const int32_t(*)[8]>(initial)));
    }
    int8x16_t weights[kOutRows][3][2];  // [row of outputs][column][channels]
    const int32_t* initial;
  };
};

void dot_depthwise_rows(const I8DepthwiseRows& rows, const I8Finish& f) {
  if (!three_by_three_rows<Dot>(rows, f)) depthwise_rows<Dot>(rows, f);
}

template <>
constexpr I8Depthwise kDepthwise<Dot> = {{Dot::kLanes, Dot::kGroup, Dot::kPacking, kEightExact},
                                         dot_depthwise_rows};

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
