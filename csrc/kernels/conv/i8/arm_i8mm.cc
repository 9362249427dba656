// INT8 convolution on smmla: a 2 x 8 matrix of signed bytes times an 8 x 2 one is added to four
// int32 lanes, without saturation. Activations go in as they are, and the accumulator begins at
// -zero_point * sum(w). Depthwise layers have no use for matrices: the kernel for sdot takes them.
//
// Exact: the true sum fits in int32 (validation bounds the taps), and in between sums are taken
// modulo 2^32.
#include "kernels/conv/i8/arm_vector.h"

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
#define SPLIT(first, second, a, b)                                  \
  "zip1 v" #first ".2d, v" #a ".2d, v" #b ".2d\n"                    \
  "zip2 v" #second ".2d, v" #a ".2d, v" #b ".2d\n"

// Sums of four pixels, arranged one behind the other, and 16 channels: of pixels 0 and 1 in v16 to
// v23, two channels each, of pixels 2 and 3 in v24 to v31. `initial` is what v16 to v23 begin with.
inline void smmla_tile(const I8Panel& p, const uint8_t* a, const int32_t* initial, int32_t* sums) {
  const int8_t* w = p.w;
  size_t left = p.steps / kMatrixSteps;
  __asm__ volatile(
      "ld1 {v16.4s-v19.4s}, [%[initial]]\n"
      "ld1 {v20.4s-v23.4s}, [%[more_initial]]\n"
      "ld1 {v24.4s-v27.4s}, [%[initial]]\n"
      "ld1 {v28.4s-v31.4s}, [%[more_initial]]\n"
      "1:\n"
      "ld1 {v0.16b-v3.16b}, [%[a]], #64\n"
      "ld1 {v4.16b-v7.16b}, [%[w]], #64\n"
      "ld1 {v8.16b-v11.16b}, [%[w]], #64\n"
      LOW_STEP(0, 1)
      "ld1 {v4.16b-v7.16b}, [%[w]], #64\n"
      HIGH_STEP(0, 1)
      "ld1 {v8.16b-v11.16b}, [%[w]], #64\n"
      "ld1 {v12.16b-v15.16b}, [%[a]], #64\n"
      LOW_STEP(2, 3)
      "ld1 {v4.16b-v7.16b}, [%[w]], #64\n"
      HIGH_STEP(2, 3)
      "ld1 {v8.16b-v11.16b}, [%[w]], #64\n"
      LOW_STEP(12, 13)
      "ld1 {v4.16b-v7.16b}, [%[w]], #64\n"
      HIGH_STEP(12, 13)
      "ld1 {v8.16b-v11.16b}, [%[w]], #64\n"
      "subs %[left], %[left], #1\n"
      LOW_STEP(14, 15)
      HIGH_STEP(14, 15)
      "b.ne 1b\n"
      SPLIT(0, 4, 16, 17) SPLIT(1, 5, 18, 19) SPLIT(2, 6, 20, 21) SPLIT(3, 7, 22, 23)
      SPLIT(8, 12, 24, 25) SPLIT(9, 13, 26, 27) SPLIT(10, 14, 28, 29) SPLIT(11, 15, 30, 31)
      "st1 {v0.4s-v3.4s}, [%[sums]], #64\n"
      "st1 {v4.4s-v7.4s}, [%[sums]], #64\n"
      "st1 {v8.4s-v11.4s}, [%[sums]], #64\n"
      "st1 {v12.4s-v15.4s}, [%[sums]]\n"
      : [w] "+&r"(w), [a] "+&r"(a), [left] "+&r"(left), [sums] "+&r"(sums)
      : [initial] "r"(initial), [more_initial] "r"(initial + kArmBlock)
      : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11",
        "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24",
        "v25", "v26", "v27", "v28", "v29", "v30", "v31");
}
#undef SMMLA
#undef SMMLA_STEP
#undef LOW_STEP
#undef HIGH_STEP
#undef SPLIT
// clang-format on

struct Matrix : Neon {
  static constexpr size_t kGroup = kMatrixLength;
  static constexpr I8Packing kPacking = I8Packing::plain;

  // [tiles of four pixels][steps][four pixels][8].
  static void arrange(const I8Panel& p, uint8_t* arranged) {
    for (size_t pixel = 0; pixel < p.pixels; pixel += kArmTilePixels) {
      TileRows rows = tile_rows(p, pixel);
      for (size_t step = 0; step < p.steps; step += 2, arranged += 2 * kMatrixLength * 4) {
        int8x16_t row[kArmTilePixels];
        for (size_t i = 0; i < kArmTilePixels; ++i) row[i] = vld1q_s8(rows.at[i]), rows.at[i] += 16;
        const auto zip = [&](size_t i, int64x2_t (*halves)(int64x2_t, int64x2_t)) {
          return vreinterpretq_u8_s64(
              halves(vreinterpretq_s64_s8(row[i]), vreinterpretq_s64_s8(row[i + 1])));
        };
        vst1q_u8(arranged, zip(0, vzip1q_s64)), vst1q_u8(arranged + 16, zip(2, vzip1q_s64));
        vst1q_u8(arranged + 32, zip(0, vzip2q_s64)), vst1q_u8(arranged + 48, zip(2, vzip2q_s64));
      }
    }
  }

  [[gnu::noinline]] static void sums(const I8Panel& p, size_t begin, size_t end, int32_t* sums) {
    int32_t initial[2 * kArmBlock];
    for (size_t c = 0; c < kArmBlock; c += 2) {
      const int32x2_t two = vld1_s32(p.channels.initial + c);
      vst1q_s32(initial + 2 * c, vcombine_s32(two, two));
    }
    for (size_t pixel = begin; pixel < end; pixel += kArmTilePixels, sums += 4 * kArmBlock) {
      smmla_tile(p, p.rows + pixel * p.row_bytes, initial, sums);
    }
  }
};

template <>
constexpr I8Dense kDense<Matrix> = {
    {Matrix::kLanes, Matrix::kGroup, Matrix::kPacking, Matrix::kExact},
    kI8BlockVectors,
    kArmTilePixels,
    1,
    kMatrixSteps,
    1,
    true,
    Matrix::pack,
    Matrix::arrange,
    arm_dense_panel<Matrix>};

}  // namespace

extern const Kernel conv_i8_i8mm = i8_dense_kernel<Matrix, Matrix>("conv_i8_i8mm", Isa::i8mm);

}  // namespace pyedge
