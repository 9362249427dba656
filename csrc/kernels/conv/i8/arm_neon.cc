// INT8 convolution on smull and smlal: two products of signed bytes are summed in int16 lanes, and
// pairs of those added to int32 lanes. Activations go in as they are, and -zero_point * sum(w) is
// added to the sum.
//
// Exact: |q| <= 128 and |w| <= 127 (validated), so two products sum to at most 32512 in magnitude;
// the true sum fits in int32 (validation bounds the taps), and in between sums are taken modulo
// 2^32.
#include "kernels/conv/i8/arm_vector.h"

namespace pyedge {
namespace {

constexpr size_t kSmullLength = 16;  // products that a step sums for a channel
constexpr size_t kSmullSteps = 2;    // in a round of the loop

// clang-format off
// Sixteen products of one channel and each of four pixels, added by `add` to s0 to s3.
#define PRODUCTS(add, w, a0, a1, a2, a3, s0, s1, s2, s3)      \
  "smull v8.8h, v" #w ".8b, v" #a0 ".8b\n"                     \
  "smull v9.8h, v" #w ".8b, v" #a1 ".8b\n"                     \
  "smull v10.8h, v" #w ".8b, v" #a2 ".8b\n"                    \
  "smull v11.8h, v" #w ".8b, v" #a3 ".8b\n"                    \
  "smlal2 v8.8h, v" #w ".16b, v" #a0 ".16b\n"                  \
  "smlal2 v9.8h, v" #w ".16b, v" #a1 ".16b\n"                  \
  "smlal2 v10.8h, v" #w ".16b, v" #a2 ".16b\n"                 \
  "smlal2 v11.8h, v" #w ".16b, v" #a3 ".16b\n"                 \
  add " v" #s0 ".4s, v8.8h\n"                                  \
  add " v" #s1 ".4s, v9.8h\n"                                  \
  add " v" #s2 ".4s, v10.8h\n"                                 \
  add " v" #s3 ".4s, v11.8h\n"
#define PRODUCTS_STEP(add, a0, a1, a2, a3)                     \
  PRODUCTS(add, 4, a0, a1, a2, a3, 16, 20, 24, 28)             \
  PRODUCTS(add, 5, a0, a1, a2, a3, 17, 21, 25, 29)             \
  PRODUCTS(add, 6, a0, a1, a2, a3, 18, 22, 26, 30)             \
  PRODUCTS(add, 7, a0, a1, a2, a3, 19, 23, 27, 31)
#define ROUND(first_add)                                       \
  "ld1 {v4.16b-v7.16b}, [%[w]], #64\n"                         \
  "ldp q0, q12, [%[r0]], #32\n"                                \
  "ldp q1, q13, [%[r1]], #32\n"                                \
  "ldp q2, q14, [%[r2]], #32\n"                                \
  "ldp q3, q15, [%[r3]], #32\n"                                \
  PRODUCTS_STEP(first_add, 0, 1, 2, 3)                         \
  "ld1 {v4.16b-v7.16b}, [%[w]], #64\n"                         \
  PRODUCTS_STEP("sadalp", 12, 13, 14, 15)
#define SUM(s0, s1, s2, s3)                                    \
  "addp v" #s0 ".4s, v" #s0 ".4s, v" #s1 ".4s\n"               \
  "addp v" #s2 ".4s, v" #s2 ".4s, v" #s3 ".4s\n"               \
  "addp v" #s0 ".4s, v" #s0 ".4s, v" #s2 ".4s\n"               \
  "add v" #s0 ".4s, v" #s0 ".4s, v0.4s\n"

// Sums of four pixels and four channels. Four lanes of each are gathered in v16 to v31.
inline const int8_t* smull_tile(const int8_t* w, size_t steps, const TileRows& rows,
                                const int32_t* initial, int32_t* sums) {
  const int8_t *r0 = rows.at[0], *r1 = rows.at[1], *r2 = rows.at[2], *r3 = rows.at[3];
  size_t left = steps / kSmullSteps;
  __asm__ volatile(
      ROUND("saddlp")
      "b 2f\n"
      "1:\n"
      ROUND("sadalp")
      "2:\n"
      "subs %[left], %[left], #1\n"
      "b.ne 1b\n"
      "ldr q0, [%[initial]]\n"
      SUM(16, 17, 18, 19) SUM(20, 21, 22, 23) SUM(24, 25, 26, 27) SUM(28, 29, 30, 31)
      "str q16, [%[sums]]\n"
      "str q20, [%[sums], #64]\n"
      "str q24, [%[sums], #128]\n"
      "str q28, [%[sums], #192]\n"
      : [w] "+&r"(w), [r0] "+&r"(r0), [r1] "+&r"(r1), [r2] "+&r"(r2), [r3] "+&r"(r3),
        [left] "+&r"(left)
      : [initial] "r"(initial), [sums] "r"(sums)
      : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11",
        "v12", "v13", "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24",
        "v25", "v26", "v27", "v28", "v29", "v30", "v31");
  return w;
}
#undef PRODUCTS
#undef PRODUCTS_STEP
#undef ROUND
#undef SUM
// clang-format on

struct Widening : Neon {
  static constexpr size_t kGroup = kSmullLength;
  static constexpr I8Packing kPacking = I8Packing::plain;

  [[gnu::noinline]] static void sums(const I8Panel& p, size_t begin, size_t end, int32_t* sums) {
    for (size_t pixel = begin; pixel < end; pixel += kArmTilePixels, sums += 4 * kArmBlock) {
      const TileRows rows = tile_rows(p, pixel);
      const int8_t* w = p.w;
      for (size_t v = 0; v < kArmBlock; v += kLanes) {
        w = smull_tile(w, p.steps, rows, p.channels.initial + v, sums + v);
      }
    }
  }
};

template <>
constexpr I8Dense kDense<Widening> = {
    {Widening::kLanes, Widening::kGroup, Widening::kPacking, Widening::kExact},
    1,
    kArmTilePixels,
    1,
    kSmullSteps,
    1,
    true,
    Widening::pack,
    nullptr,
    arm_dense_panel<Widening>};

// Depthwise: lanes are channels, and the image is read where it lies.
class Sums {
 public:
  explicit Sums(const int32_t* initial) {
    for (size_t v = 0; v < 4; ++v) sums_[v] = vld1q_s32(initial + 4 * v);
  }
  void add(int8x16_t a, int8x16_t w) {
    widen(vmull_s8(vget_low_s8(a), vget_low_s8(w)), vmull_high_s8(a, w));
  }
  void add(int8x16_t a, int8x16_t w, int8x16_t b, int8x16_t v) {
    const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(w)), high = vmull_high_s8(a, w);
    widen(vmlal_s8(low, vget_low_s8(b), vget_low_s8(v)), vmlal_high_s8(high, b, v));
  }
  const int32x4_t* get() const { return sums_; }

 private:
  void widen(int16x8_t low, int16x8_t high) {
    sums_[0] = vaddw_s16(sums_[0], vget_low_s16(low)), sums_[1] = vaddw_high_s16(sums_[1], low);
    sums_[2] = vaddw_s16(sums_[2], vget_low_s16(high)), sums_[3] = vaddw_high_s16(sums_[3], high);
  }

  int32x4_t sums_[4];
};

// Where tap (x, r) of the kernel lies for the output whose first column is `left`.
const int8_t* tap_of(const I8DepthwiseRow& row, int32_t left, int32_t x, size_t r,
                     const int8_t* padding) {
  const int32_t column = left + x * row.dilation_w;
  const bool inside = column >= 0 && column < row.in_w;
  return inside ? row.rows[r] + static_cast<size_t>(column) * row.pixel_bytes[r] : padding;
}

template <class Finish>
void any_pixel(const I8DepthwiseRow& row, int32_t left, const int8_t* padding, const Finish& finish,
               size_t at) {
  Sums sums(row.channels.initial);
  const int8_t *previous = nullptr, *w = row.w;
  for (int32_t x = 0; x < row.kernel_w; ++x) {
    for (size_t r = 0; r < row.row_groups; ++r, w += kArmBlock) {
      const int8_t* tap = tap_of(row, left, x, r, padding);
      if (previous != nullptr) {
        sums.add(vld1q_s8(previous), vld1q_s8(w - kArmBlock), vld1q_s8(tap), vld1q_s8(w));
        tap = nullptr;
      }
      previous = tap;
    }
  }
  if (previous != nullptr) sums.add(vld1q_s8(previous), vld1q_s8(w - kArmBlock));
  finish(sums.get(), at);
}

// Three rows of three columns, which begin at c[0], c[1] and c[2] in the first row and so on.
struct Columns {
  const int8_t* rows[3][3];  // [column][row]
};

template <class Finish>
[[gnu::always_inline]] inline void nine_taps(const Columns& c, const int8x16_t* w,
                                             const int32_t* initial, const Finish& finish,
                                             size_t at) {
  Sums sums(initial);
  const auto tap = [&](size_t i) { return vld1q_s8(c.rows[i / 3][i % 3]); };
  for (size_t i = 0; i < 8; i += 2) sums.add(tap(i), w[i], tap(i + 1), w[i + 1]);
  sums.add(tap(8), w[8]);
  finish(sums.get(), at);
}

template <class Finish>
void nine_taps_row(const I8DepthwiseRow& row, const int8_t* padding, const Finish& finish,
                   size_t y_stride) {
  int8x16_t w[9];
  for (size_t i = 0; i < 9; ++i) w[i] = vld1q_s8(row.w + i * kArmBlock);
  const int32_t* initial = row.channels.initial;
  size_t at = row.at;
  int32_t left = -row.pad_left;
  const int32_t end = left + row.out_w * row.stride_w;
  const auto at_edges = [&](int32_t until) {
    for (; left < until && left < end; left += row.stride_w, at += y_stride) {
      Columns c;
      for (int32_t x = 0; x < 3; ++x) {
        for (size_t r = 0; r < 3; ++r) c.rows[x][r] = tap_of(row, left, x, r, padding);
      }
      nine_taps(c, w, initial, finish, at);
    }
  };
  at_edges(0);
  const size_t b0 = row.pixel_bytes[0], b1 = row.pixel_bytes[1], b2 = row.pixel_bytes[2];
  const size_t first = static_cast<size_t>(left), stride = static_cast<size_t>(row.stride_w);
  const int8_t *r0 = row.rows[0] + first * b0, *r1 = row.rows[1] + first * b1,
               *r2 = row.rows[2] + first * b2;
  const int32_t last = row.in_w - 2 < end ? row.in_w - 2 : end, step = row.stride_w;
  for (; left < last; left += step, at += y_stride) {
    nine_taps(
        {{{r0, r1, r2}, {r0 + b0, r1 + b1, r2 + b2}, {r0 + 2 * b0, r1 + 2 * b1, r2 + 2 * b2}}}, w,
        initial, finish, at);
    r0 += stride * b0, r1 += stride * b1, r2 += stride * b2;
  }
  at_edges(end);
}

void widening_depthwise_row(const I8DepthwiseRow& row, const I8Finish& f) {
  int8_t padding[kArmBlock];
  vst1q_s8(padding, vdupq_n_s8(static_cast<int8_t>(row.zero_point)));
  const size_t y_stride = f.y_stride;
  with_finish<Widening>(f, row.channels, row.channel_count, [&](const auto& finish) {
    if (row.kernel_w == 3 && row.row_groups == 3 && row.dilation_w == 1) {
      nine_taps_row(row, padding, finish, y_stride);
      return;
    }
    size_t at = row.at;
    for (int32_t x = 0; x < row.out_w; ++x, at += y_stride) {
      any_pixel(row, x * row.stride_w - row.pad_left, padding, finish, at);
    }
  });
}

template <>
constexpr I8Depthwise kDepthwise<Widening> = {
    {Widening::kLanes, 1, Widening::kPacking, Widening::kExact}, widening_depthwise_row};

}  // namespace

extern const Kernel conv_i8_neon = i8_dense_kernel<Widening, Widening>("conv_i8_neon", Isa::neon);
extern const Kernel conv_i8_depthwise_neon =
    i8_depthwise_kernel<Widening, Widening>("conv_i8_depthwise_neon", Isa::neon);

}  // namespace pyedge
