// INT8 convolution on smmla: a 2 x 8 matrix of signed bytes times an 8 x 2 one is added to four
// int32 lanes, without saturation. Activations go in as they are, and the accumulator begins at
// -zero_point * sum(w). Depthwise layers have no use for matrices: the kernel for sdot takes them.
//
// Exact: the true sum fits in int32 (validation bounds the taps), and in between sums are taken
// modulo 2^32.
#include "kernels/conv/i8/arm_finish.h"

namespace pyedge {
namespace {

constexpr size_t kMatrixLength = 8;  // of a row: the products that a step sums
constexpr size_t kMatrixSteps = 4;   // in a round of the loop

// clang-format off
#define SMMLA(sum, a, w) "smmla v" #sum ".4s, v" #a ".16b, v" #w ".16b\n"
// Eight channels, weights w0 to w3, for two pairs of pixels.
#define SMMLA_STEP(s0, s1, s2, s3, t0, t1, t2, t3, w0, w1, w2, w3, a0, a1) \
  SMMLA(s0, a0, w0) SMMLA(s1, a0, w1) SMMLA(s2, a0, w2) SMMLA(s3, a0, w3)   \
  SMMLA(t0, a1, w0) SMMLA(t1, a1, w1) SMMLA(t2, a1, w2) SMMLA(t3, a1, w3)
#define LOW_STEP(a0, a1) SMMLA_STEP(16, 17, 18, 19, 24, 25, 26, 27, 4, 5, 6, 7, a0, a1)
#define HIGH_STEP(a0, a1) SMMLA_STEP(20, 21, 22, 23, 28, 29, 30, 31, 8, 9, 10, 11, a0, a1)
// The vectors of four channels from two of two channels and two pixels.
#define SPLIT(first, second, a, b)                              \
  "zip1 v" #first ".2d, v" #a ".2d, v" #b ".2d\n"              \
  "zip2 v" #second ".2d, v" #a ".2d, v" #b ".2d\n"
#define FINISH_TILE(residual, slope, odd)                       \
  SPLIT(0, 17, 16, 17) SPLIT(1, 19, 18, 19) SPLIT(2, 21, 20, 21) SPLIT(3, 23, 22, 23) \
  FINISH_CONSTANTS                                              \
  CONVERT(16, 18, 20, 22, 0, 1, 2, 3)                           \
  FINISH_FLOATS(16, 18, 20, 22, y_step1, residual, slope, odd)  \
  FINISH_PIXEL(17, 19, 21, 23, y_step2, residual, slope, odd)   \
  SPLIT(16, 25, 24, 25) SPLIT(18, 27, 26, 27) SPLIT(20, 29, 28, 29) SPLIT(22, 31, 30, 31) \
  FINISH_PIXEL(16, 18, 20, 22, y_step3, residual, slope, odd)   \
  FINISH_PIXEL(25, 27, 29, 31, y_step, residual, slope, odd)
#define STORE_TILE                                              \
  SPLIT(0, 4, 16, 17) SPLIT(1, 5, 18, 19) SPLIT(2, 6, 20, 21) SPLIT(3, 7, 22, 23) \
  SPLIT(8, 12, 24, 25) SPLIT(9, 13, 26, 27) SPLIT(10, 14, 28, 29) SPLIT(11, 15, 30, 31) \
  "st1 {v0.4s-v3.4s}, [%[y]], #64\n"                           \
  "st1 {v4.4s-v7.4s}, [%[y]], #64\n"                           \
  "st1 {v8.4s-v11.4s}, [%[y]], #64\n"                          \
  "st1 {v12.4s-v15.4s}, [%[y]], #64\n"

// Sums of four pixels, arranged one behind the other, and 16 channels: of pixels 0 and 1 in v16 to
// v23, two channels each, of pixels 2 and 3 in v24 to v31. Then what becomes of them. `initial` is
// what v16 to v23 begin with.
#define TILES(finish)                                           \
  [](ArmTiles t) {                                              \
    int32_t initial[2 * kArmBlock];                             \
    for (size_t c = 0; c < kArmBlock; c += 2) {                 \
      const int32x2_t two = vld1_s32(t.channels.initial + c);   \
      vst1q_s32(initial + 2 * c, vcombine_s32(two, two));       \
    }                                                           \
    t.end_at_last();                                                  \
    do {                                                        \
      const int8_t *w = t.w, *a = t.row;                        \
      size_t left = t.rounds;                                   \
      __asm__ volatile(                                         \
      "ld1 {v16.4s-v19.4s}, [%[initial]]\n"                    \
      "ld1 {v20.4s-v23.4s}, [%[more_initial]]\n"               \
      "ld1 {v24.4s-v27.4s}, [%[initial]]\n"                    \
      "ld1 {v28.4s-v31.4s}, [%[more_initial]]\n"               \
      "1:\n"                                                   \
      "ld1 {v0.16b-v3.16b}, [%[a]], #64\n"                     \
      "ld1 {v4.16b-v7.16b}, [%[w]], #64\n"                     \
      "ld1 {v12.16b-v15.16b}, [%[a]], #64\n"                   \
      "ld1 {v8.16b-v11.16b}, [%[w]], #64\n"                    \
      LOW_STEP(0, 12)                                           \
      "ld1 {v4.16b-v7.16b}, [%[w]], #64\n"                     \
      HIGH_STEP(0, 12)                                          \
      "ld1 {v8.16b-v11.16b}, [%[w]], #64\n"                    \
      LOW_STEP(1, 13)                                           \
      "ld1 {v4.16b-v7.16b}, [%[w]], #64\n"                     \
      HIGH_STEP(1, 13)                                          \
      "ld1 {v8.16b-v11.16b}, [%[w]], #64\n"                    \
      LOW_STEP(2, 14)                                           \
      "ld1 {v4.16b-v7.16b}, [%[w]], #64\n"                     \
      HIGH_STEP(2, 14)                                          \
      "ld1 {v8.16b-v11.16b}, [%[w]], #64\n"                    \
      "subs %[left], %[left], #1\n"                            \
      LOW_STEP(3, 15)                                           \
      HIGH_STEP(3, 15)                                          \
      "b.ne 1b\n"                                              \
      finish                                                    \
      : [w] "+&r"(w), [a] "+&r"(a), [left] "+&r"(left), [y] "+&r"(t.y),                       \
        [residual] "+&r"(t.residual)                            \
      : [initial] "r"(initial), [more_initial] "r"(initial + kArmBlock), FINISH_INPUTS(t),    \
        [y_step1] "r"(t.y_step1), [y_step2] "r"(t.y_step2), [y_step3] "r"(t.y_step3) \
      : ALL_VECTORS);                                           \
    } while (t.next());                                         \
  },
#define FINISHED_TILES(residual, slope, odd) TILES(FINISH_TILE(residual, slope, odd))
constexpr void (*kSmmlaTiles[])(ArmTiles) = {ARM_FINISH_VARIANTS(FINISHED_TILES) TILES(STORE_TILE)};
#undef SMMLA
#undef SMMLA_STEP
#undef LOW_STEP
#undef HIGH_STEP
#undef SPLIT
// clang-format on

struct Matrix : Neon {
  static constexpr auto& kTiles = kSmmlaTiles;
  static constexpr size_t kRoundSteps = kMatrixSteps;
  static constexpr size_t kGroup = kMatrixLength;
  static constexpr I8Packing kPacking = I8Packing::plain;

  // [tiles of four pixels][rounds][two pairs of pixels][4 steps][2][8].
  static void arrange(const I8Panel& p, uint8_t* arranged) {
    for (size_t pixel = 0; pixel < p.pixels; pixel += kArmTilePixels) {
      const size_t left = p.pixels - pixel, step = p.row_bytes;
      const uint8_t *r0 = p.rows + pixel * step, *r1 = r0 + (left > 1 ? step : 0),
                    *r2 = r1 + (left > 2 ? step : 0), *r3 = r2 + (left > 3 ? step : 0);
      for (size_t round = 0; round < p.steps; round += kMatrixSteps) {
        __asm__ volatile(
            "ld4 {v0.d-v3.d}[0], [%[r0]], #32\n"
            "ld4 {v0.d-v3.d}[1], [%[r1]], #32\n"
            "ld4 {v4.d-v7.d}[0], [%[r2]], #32\n"
            "ld4 {v4.d-v7.d}[1], [%[r3]], #32\n"
            "st1 {v0.2d-v3.2d}, [%[to]], #64\n"
            "st1 {v4.2d-v7.2d}, [%[to]], #64\n"
            : [r0] "+&r"(r0), [r1] "+&r"(r1), [r2] "+&r"(r2), [r3] "+&r"(r3), [to] "+&r"(arranged)
            :
            : "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7");
      }
    }
  }
};

template <>
constexpr I8Dense kDense<Matrix> = {
    {Matrix::kLanes, Matrix::kGroup, Matrix::kPacking, Matrix::kExact},
    kI8BlockVectors,
    kArmTilePixels,
    kArmTilePixels,
    kMatrixSteps,
    1,
    true,
    Matrix::pack,
    Matrix::arrange,
    arm_dense_panel<Matrix>};

}  // namespace

extern const Kernel conv_i8_i8mm = i8_dense_kernel<Matrix, Matrix>("conv_i8_i8mm", Isa::i8mm);

}  // namespace pyedge
