// INT8 convolution on smull and smlal, which sum products of signed bytes in int16 lanes, without
// saturation. Activations go in as they are, and -zero_point * sum(w) is added to the sum. For the
// bounds that make dense layers exact see arm_smull.h; depthwise ones sum two products, at most
// 32512 in magnitude as |q| <= 128 and |w| <= 127 (validated), before they go to int32 lanes.
#include "kernels/conv/i8/arm_finish.h"
#include "kernels/conv/i8/arm_smull.h"

namespace pyedge {
namespace {

constexpr size_t kSmullPixels = 160;  // at once, for which there is space on the stack

// Sums of pixels, [pixels][16]; sixteen more int32 lie before those of the first.
struct SmullSums {
  int32_t unused[kArmBlock], sums[kSmullPixels * kArmBlock];
};

struct Widening : Neon {
  static constexpr size_t kGroup = kSmullLength;
  static constexpr I8Packing kPacking = I8Packing::plain;

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
