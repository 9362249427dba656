// INT8 convolution on smull and smlal, which sum products of signed bytes in int16 lanes, without
// saturation. Activations go in as they are, and -zero_point * sum(w) is added to the sum. For the
// bounds that make dense layers exact see arm_smull.h; depthwise ones sum two products, at most
// 32512 in magnitude as |q| <= 128 and |w| <= 127 (validated), before they go to int32 lanes.
#include "kernels/conv/i8/arm_depthwise.h"
#include "kernels/conv/i8/arm_finish.h"
#include "kernels/conv/i8/arm_smull.h"

namespace pyedge {
namespace {

constexpr size_t kSmullPixels = 160;  // at once, for which there is space on the stack

// Sums of pixels, [pixels][16]; sixteen more int32 lie before those of the first.
struct SmullSums {
  int32_t unused[kArmBlock], sums[kSmullPixels * kArmBlock];
};

// clang-format off
#define WIDEN(x)                                              \
  "saddw %[low].4s, %[low].4s, %[" #x "].4h\n"                \
  "saddw2 %[high].4s, %[high].4s, %[" #x "].8h\n"
// The nine products of a window: columns a, b and c, weights w and, in the third row, v. One of the
// other two rows lies in the lower half of register `low_row`, the other in the upper half of 0, and
// the third in one half of 1. No more than two products are summed in 16 bits.
#define WINDOW_SUMS(low_row, half, bytes)                                                         \
  __asm__("smull %[x].8h, %[a].8b, %[wa].8b\n"                                                    \
          "smull %[y].8h, %[b].8b, %[wb].8b\n"                                                    \
          "smull %[z].8h, %[c].8b, %[wc].8b\n"                                                    \
          "ldp %q[low], %q[high], [%[initial]]\n"                                                 \
          "smlal2 %[x].8h, %[a0].16b, %[wa].16b\n"                                                \
          "smlal2 %[y].8h, %[b0].16b, %[wb].16b\n"                                                \
          "smlal2 %[z].8h, %[c0].16b, %[wc].16b\n"                                                \
          WIDEN(x)                                                                                \
          "smull" half " %[x].8h, %[a1]." bytes ", %[va]." bytes "\n"                             \
          WIDEN(y)                                                                                \
          "smull" half " %[y].8h, %[c1]." bytes ", %[vc]." bytes "\n"                             \
          WIDEN(z)                                                                                \
          "smlal" half " %[x].8h, %[b1]." bytes ", %[vb]." bytes "\n"                             \
          WIDEN(y)                                                                                \
          WIDEN(x)                                                                                \
          : [low] "=&w"(sums[0]), [high] "=&w"(sums[1]), [x] "=&w"(x), [y] "=&w"(y), [z] "=&w"(z) \
          : [a] "w"(a.rows[low_row]), [b] "w"(b.rows[low_row]), [c] "w"(c.rows[low_row]),         \
            [a0] "w"(a.rows[0]), [b0] "w"(b.rows[0]), [c0] "w"(c.rows[0]), [a1] "w"(a.rows[1]),   \
            [b1] "w"(b.rows[1]), [c1] "w"(c.rows[1]), [wa] "w"(w[0]), [wb] "w"(w[1]),             \
            [wc] "w"(w[2]), [va] "w"(one[0]), [vb] "w"(one[1]), [vc] "w"(one[2]),                 \
            [initial] "r"(initial), "m"(*reinterpret_cast<const int32_t(*)[8]>(initial)))
// clang-format on

struct Widening : Neon {
  static constexpr size_t kGroup = kSmullLength;
  static constexpr I8Packing kPacking = I8Packing::plain;

  // Two rows in a register.
  template <size_t kRows>
  struct Column {
    Column() = default;
    explicit Column(int8x16_t padding) : rows{padding, padding} {}
    Column(const int8_t** image, const size_t* step) {
      rows[0] = load_eight(&image[0], step[0]);
      load_upper_eight(&image[1], step[1], &rows[0]);
      rows[1] = load_eight(&image[2], step[2]);
      if (kRows == 4) load_upper_eight(&image[3], step[3], &rows[1]);
    }
    int8x16_t rows[2];
  };
  template <size_t kOutRows>
  struct Window {
    Window(const I8DepthwiseRows& rows, size_t first) : initial(rows.channels.initial + first) {
      for (size_t x = 0; x < 3; ++x) {
        int8x8_t w[3];
        for (size_t r = 0; r < 3; ++r) w[r] = vld1_s8(rows.w + (3 * x + r) * kArmBlock + first);
        two[0][x] = vcombine_s8(w[0], w[1]), two[1][x] = vcombine_s8(w[1], w[0]);
        one[x] = vcombine_s8(w[2], w[2]);
      }
    }
    template <class Columns>
    void sums(size_t row, const Columns& a, const Columns& b, const Columns& c, Int* sums) const {
      const int8x16_t* w = two[row];
      int16x8_t x, y, z;
      if (row == 0) {
        WINDOW_SUMS(0, "", "8b");
      } else {
        WINDOW_SUMS(1, "2", "16b");
      }
    }
#undef WIDEN
#undef WINDOW_SUMS
    int8x16_t two[2][3];  // [row of outputs][column], where the first two rows of the window lie
    int8x16_t one[3];     // the third row, in both halves
    const int32_t* initial;
  };

  // Of each vector of channels the loops of its blocks.
  static void survey(const int8_t* w, size_t steps, uint8_t* loops) {
    for (size_t v = 0; v < kI8BlockVectors; ++v, loops += steps) {
      smull_choose(w + v * steps * kSmullChannels * kSmullLength, steps, loops);
    }
  }

  [[gnu::noinline]] static void sums(const I8Panel& p, size_t begin, size_t count, SmullSums* to) {
    constexpr size_t kStep = kSmullChannels * kSmullLength;
    SmullSums lanes;
    int32_t initial[kArmBlock][4];
    const int32x4_t none = vdupq_n_s32(0);
    for (size_t c = 0; c < kArmBlock; c += 4) {
      const int32x4x4_t four = {{vld1q_s32(p.channels.initial + c), none, none, none}};
      vst4q_s32(initial[c], four);
    }
    const int8_t *w = p.w, *rows = reinterpret_cast<const int8_t*>(p.rows) + begin * p.row_bytes;
    for (size_t v = 0; v < kI8BlockVectors; ++v) {
      const uint8_t* loops = p.survey + v * p.steps;
      const int32_t* from = initial[v * kLanes];
      size_t from_bytes = 0;
      for (size_t step = 0; step < p.steps; step += kSmullBlock) {
        const size_t left = p.steps - step, loop = loops[step / kSmullBlock];
        const SmullLoop run = left < kSmullBlock    ? kSmullTailLoops[loop]
                              : left == kSmullBlock ? kSmullBlockLoops[loop].sums
                                                    : kSmullBlockLoops[loop].lanes;
        run(w, rows + step * kSmullLength, p.row_bytes, count, from, from_bytes,
            left <= kSmullBlock ? to->unused + v * kLanes : lanes.unused);
        w += (left < kSmullBlock ? left : kSmullBlock) * kStep;
        from = lanes.sums;
        from_bytes = kArmBlock * sizeof(int32_t);
      }
    }
  }
};

// clang-format off
#define FINISH_SUMS(residual_step, slope_step, odd)                                       \
  [](ArmOutput* out, const int32_t* sums, size_t count) {                                 \
    __asm__ volatile(                                                                     \
        FINISH_CONSTANTS                                                                  \
        "tbnz %[count], #0, 2f\n"                                                        \
        "1:\n"                                                                           \
        "ld1 {v16.4s-v19.4s}, [%[sums]], #64\n"                                          \
        FINISH_PIXEL(16, 17, 18, 19, y_step, residual_step, slope_step, odd)              \
        "2:\n"                                                                           \
        "ld1 {v16.4s-v19.4s}, [%[sums]], #64\n"                                          \
        "subs %[count], %[count], #2\n"                                                  \
        FINISH_PIXEL(16, 17, 18, 19, y_step, residual_step, slope_step, odd)              \
        "b.gt 1b\n"                                                                      \
        : [sums] "+&r"(sums), [count] "+&r"(count), [y] "+&r"(out->y),                    \
          [residual] "+&r"(out->residual)                                                 \
        : FINISH_INPUTS(*out)                                                             \
        : ALL_VECTORS);                                                                   \
  },
constexpr void (*kFinishSums[])(ArmOutput*, const int32_t* sums, size_t count) = {
    ARM_FINISH_VARIANTS(FINISH_SUMS)};
#undef FINISH_SUMS
// clang-format on

// Calls finish(sums, count) for all pixels of the panel, some at a time.
template <class Finish>
void smull_pixels(const I8Panel& p, const Finish& finish) {
  SmullSums sums;
  const size_t parts = (p.pixels + kSmullPixels - 1) / kSmullPixels;
  for (size_t part = 0; part < parts; ++part) {
    const size_t begin = part * p.pixels / parts, end = (part + 1) * p.pixels / parts;
    Widening::sums(p, begin, end - begin, &sums);
    finish(sums.sums, end - begin);
  }
}

void smull_panel(const I8Panel& p, const I8Finish& f) {
  const size_t variant = ArmFinish::variant(f, p.channel_count);
  if (variant < ArmFinish::kVariants) {
    const ArmFinish constants(f);
    ArmOutput out(p, f, &constants);
    smull_pixels(
        p, [&](const int32_t* sums, size_t count) { kFinishSums[variant](&out, sums, count); });
    return;
  }
  with_finish<Widening>(f, p.channels, p.channel_count, [&](const auto& finish) {
    size_t at = p.at;
    smull_pixels(p, [&](const int32_t* sums, size_t count) {
      for (size_t i = 0; i < count; ++i, at += f.y_stride) {
        finish(vld1q_s32_x4(sums + i * kArmBlock).val, at);
      }
    });
  });
}

template <>
constexpr I8Dense kDense<Widening> = {
    {Widening::kLanes, Widening::kGroup, Widening::kPacking, Widening::kExact},
    1,
    kArmTilePixels,
    1,
    kSmullTail,
    1,
    true,
    Widening::pack,
    nullptr,
    smull_panel,
    Widening::survey};

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
const int8_t* tap_of(const I8DepthwiseRows& row, int32_t left, int32_t x, size_t r,
                     const int8_t* padding) {
  const int32_t column = left + x * row.dilation_w;
  const bool inside = column >= 0 && column < row.in_w;
  return inside ? row.rows[r] + static_cast<size_t>(column) * row.pixel_bytes[r] : padding;
}

template <class Finish>
void any_pixel(const I8DepthwiseRows& row, size_t first_row, int32_t left, const int8_t* padding,
               const Finish& finish, size_t at) {
  Sums sums(row.channels.initial);
  const int8_t *previous = nullptr, *w = row.w;
  for (int32_t x = 0; x < row.kernel_w; ++x) {
    for (size_t r = 0; r < row.row_groups; ++r, w += kArmBlock) {
      const int8_t* tap = tap_of(row, left, x, first_row + r, padding);
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

void widening_depthwise_rows(const I8DepthwiseRows& rows, const I8Finish& f) {
  if (three_by_three_rows<Widening>(rows, f)) return;
  int8_t padding[kArmBlock];
  vst1q_s8(padding, vdupq_n_s8(static_cast<int8_t>(rows.zero_point)));
  const size_t y_stride = f.y_stride;
  with_finish<Widening>(f, rows.channels, rows.channel_count, [&](const auto& finish) {
    I8DepthwiseRows set = rows;
    do {
      size_t at = set.at;
      for (size_t r = 0; r < i8_out_rows(set); ++r) {
        for (int32_t x = 0; x < set.out_w; ++x, at += y_stride) {
          any_pixel(set, r, x * set.stride_w - set.pad_left, padding, finish, at);
        }
      }
    } while (i8_next_set(&set));
  });
}

template <>
constexpr I8Depthwise kDepthwise<Widening> = {
    {Widening::kLanes, 1, Widening::kPacking, kEightExact}, widening_depthwise_rows, true};

}  // namespace

extern const Kernel conv_i8_neon = i8_dense_kernel<Widening, Widening>("conv_i8_neon", Isa::neon);
extern const Kernel conv_i8_depthwise_neon =
    i8_depthwise_kernel<Widening, Widening>("conv_i8_depthwise_neon", Isa::neon);

}  // namespace pyedge
