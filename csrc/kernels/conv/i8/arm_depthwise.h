// Depthwise 3x3 INT8 convolution over 128-bit NEON vectors: eight channels of one row of outputs,
// or, where the stride is 1, of two rows, which share the image rows between them. Internal
// linkage: every file that includes this gets its own copy, compiled for its own instruction set.
//
// The window walks along the image rows and keeps the columns it has seen in registers, as it does
// the weights. What sums begin with and are added to would be overwritten: it is loaded each time.
#pragma once

#include "kernels/conv/i8/arm_vector.h"

namespace pyedge {
namespace {

constexpr size_t kEight = 8;          // channels
constexpr float kEightExact = 19000;  // of FinishEight

// Loads or stores the eight bytes at p, in the lower half of a register, and advances p.
inline int8x16_t load_eight(const int8_t** p, size_t step) {
  int8x16_t x;
  __asm__ volatile("ld1 {%0.8b}, [%1], %2" : "=w"(x), "+r"(*p) : "r"(step) : "memory");
  return x;
}
inline void load_upper_eight(const int8_t** p, size_t step, int8x16_t* x) {
  __asm__ volatile("ld1 {%0.d}[1], [%1], %2" : "+w"(*x), "+r"(*p) : "r"(step) : "memory");
}
inline void store_eight(int8_t** p, size_t step, int8x8_t x) {
  __asm__ volatile("st1 {%1.8b}, [%0], %2" : "+r"(*p) : "w"(x), "r"(step) : "memory");
}

template <I8Slope kSlope, bool kClamps>
struct FinishEight {
  float32x4_t scale[2], slope[2], lo, hi, rounding;
  const float* bias;

  FinishEight(const I8Finish& f, const I8Channels& c, size_t first)
      : lo(vdupq_n_f32(f.lo)), hi(vdupq_n_f32(f.hi)), bias(c.bias + first) {
    for (size_t v = 0; v < 2; ++v) {
      scale[v] = vld1q_f32(c.scale + first + 4 * v), slope[v] = vld1q_f32(c.slope + first + 4 * v);
    }
    // Past 2^23 the bits of a float count in steps of one. After this is added, their two halves
    // sum to the rounded value plus the zero point, modulo 2^16: the lower half does not overflow
    // for values between -46144 and 19136. It is even, so halves are rounded as they should.
    const int32_t upper = 0x4b40 + (f.zero_point & 1);
    rounding =
        vreinterpretq_f32_s32(vdupq_n_s32(upper * 0x10000 + ((f.zero_point - upper) & 0xffff)));
  }

  // Of several rows, side by side: the next step of one does not wait for the last of its own.
  template <size_t kRows>
  void operator()(const int32x4_t (*sums)[2], int8x8_t* outputs) const {
    constexpr size_t kVectors = 2 * kRows;
    float32x4_t x[kVectors], y[kVectors];
    for (size_t i = 0; i < kVectors; ++i) x[i] = vcvtq_f32_s32(sums[i / 2][i % 2]);
    for (size_t i = 0; i < kVectors; i += 2) {
      // Both at once; GCC would keep them in registers, as many again, and copy.
      __asm__(
          "ldp %q0, %q1, [%[bias]]\n"
          "fmla %0.4s, %2.4s, %4.4s\n"
          "fmla %1.4s, %3.4s, %5.4s"
          : "=&w"(y[i]), "=&w"(y[i + 1])
          : "w"(x[i]), "w"(x[i + 1]), "w"(scale[0]), "w"(scale[1]), [bias] "r"(bias),
            "m"(*reinterpret_cast<const float(*)[8]>(bias)));
    }
    for (size_t i = 0; i < kVectors; ++i) {
      if (kSlope == I8Slope::max) x[i] = vmulq_f32(y[i], slope[i % 2]);
      if (kSlope == I8Slope::select) y[i] = Neon::prelu(y[i], slope[i % 2]);
    }
    for (size_t i = 0; i < kVectors; ++i) {
      if (kSlope == I8Slope::max) y[i] = vmaxq_f32(y[i], x[i]);
      if (kClamps) y[i] = Neon::clamp(y[i], lo, hi);
    }
    for (size_t i = 0; i < kVectors; ++i) y[i] = vaddq_f32(y[i], rounding);
    for (size_t r = 0; r < kRows; ++r) {
      outputs[r] = vqmovn_s16(
          vpaddq_s16(vreinterpretq_s16_f32(y[2 * r]), vreinterpretq_s16_f32(y[2 * r + 1])));
    }
  }
};

// V::Column<image rows> is one column of eight channels, padding or loaded and advanced past;
// V::Window<rows of outputs> holds the weights and sums the products of three columns.
template <class V, int kStride, class Finish>
class ThreeByThree {
  static constexpr size_t kOutRows = kStride == 1 ? 2 : 1, kRows = kOutRows + 2;
  using Column = typename V::template Column<kRows>;

 public:
  ThreeByThree(const I8DepthwiseRows& rows, const I8Finish& f, size_t first)
      : window_(rows, first),
        finish_(f, rows.channels, first),
        first_(first),
        y_first_(static_cast<int8_t*>(f.y) + first),
        y_stride_(f.y_stride),
        in_w_(rows.in_w),
        zero_point_(static_cast<int8_t>(rows.zero_point)) {}

  // The outputs of one set; `nowhere` is for a row below the last.
  [[gnu::always_inline]] void run(const I8DepthwiseRows& set, int8_t* nowhere) {
    start(set, nowhere);
    Column a = checked_column(), b = kStride == 1 ? checked_column() : a, c;
    for (int32_t left = set.out_w; left > 0; --left) {
      if (x_ >= 0) {
        const int32_t in_image = (in_w_ - x_) / kStride;
        left -= run_in_image(in_image < left ? in_image : left, &a, &b);
        if (left <= 0) break;
      }
      if (kStride == 2) b = checked_column();
      c = checked_column();
      output(a, b, c);
      if (kStride == 1) a = b, b = c;
      if (kStride == 2) a = c;
    }
  }

 private:
  [[gnu::always_inline]] void start(const I8DepthwiseRows& set, int8_t* nowhere) {
    x_ = -set.pad_left;
    for (size_t r = 0; r < kRows; ++r) {
      image_[r] = set.rows[r] + first_, image_step_[r] = set.pixel_bytes[r];
    }
    for (size_t r = 0; r < kOutRows; ++r) {
      const bool inside = r < set.left;
      y_[r] = inside ? y_first_ + set.at + r * set.y_row : nowhere;
      y_step_[r] = inside ? y_stride_ : 0;
    }
  }

  // As many of `count` outputs as come round to the same registers.
  [[gnu::always_inline]] int32_t run_in_image(int32_t count, Column* first, Column* second) {
    Column a = *first, b = *second, c;
    const int32_t end = count - kRound;
    int32_t done = 0;
    for (; done <= end; done += kRound) {
      if (kStride == 1) {
        c = column(), output(a, b, c);
        a = column(), output(b, c, a);
        b = column(), output(c, a, b);
      } else {
        b = column(), c = column(), output(a, b, c);
        b = column(), a = column(), output(c, b, a);
      }
    }
    x_ += done * kStride;
    *first = a, *second = b;
    return done;
  }

  [[gnu::always_inline]] Column column() { return Column(image_, image_step_); }
  [[gnu::always_inline]] Column checked_column() {
    const int32_t x = x_++;
    return x >= 0 && x < in_w_ ? column() : Column(vdupq_n_s8(zero_point_));
  }

  [[gnu::always_inline]] void output(const Column& a, const Column& b, const Column& c) {
    int32x4_t sums[kOutRows][2];
    int8x8_t outputs[kOutRows];
    for (size_t r = 0; r < kOutRows; ++r) window_.sums(r, a, b, c, sums[r]);
    finish_.template operator()<kOutRows>(sums, outputs);
    for (size_t r = 0; r < kOutRows; ++r) store_eight(&y_[r], y_step_[r], outputs[r]);
  }

  static constexpr int32_t kRound = kStride == 1 ? 3 : 2;

  const typename V::template Window<kOutRows> window_;
  const Finish finish_;
  const size_t first_;
  int8_t* const y_first_;
  const size_t y_stride_;
  const int32_t in_w_;
  const int8_t zero_point_;
  int32_t x_;  // the next column
  const int8_t* image_[kRows];
  int8_t* y_[kOutRows];
  size_t image_step_[kRows], y_step_[kOutRows];
};

template <class V, int kStride, class Finish>
void three_by_three_rows(const I8DepthwiseRows& rows, const I8Finish& f) {
  int8_t nowhere[kEight];
  const size_t last = rows.channel_count - kEight;
  for (size_t first = 0; first < rows.channel_count; first += kEight) {
    ThreeByThree<V, kStride, Finish> window(rows, f, first < last ? first : last);
    I8DepthwiseRows set = rows;
    do window.run(set, nowhere);
    while (i8_next_set(&set));
  }
}

template <class V, int kStride>
void three_by_three_rows(const I8DepthwiseRows& rows, const I8Finish& f) {
  if (f.has_slope && (f.clamps || !f.slope_is_max)) {
    three_by_three_rows<V, kStride, FinishEight<I8Slope::select, true>>(rows, f);
  } else if (f.clamps) {
    three_by_three_rows<V, kStride, FinishEight<I8Slope::none, true>>(rows, f);
  } else {
    three_by_three_rows<V, kStride, FinishEight<I8Slope::max, false>>(rows, f);  // slopes may be 1
  }
}

// Whether they were rows of that kind.
template <class V>
bool three_by_three_rows(const I8DepthwiseRows& rows, const I8Finish& f) {
  if (rows.kernel_h != 3 || rows.kernel_w != 3 || rows.dilation_w != 1 || f.f32 ||
      f.residual != nullptr || f.activation.kind != Activation::kNone ||
      rows.channel_count < kEight) {
    return false;
  }
  if (rows.stride_w == 1 && rows.set_rows == 2) {
    three_by_three_rows<V, 1>(rows, f);
  } else if (rows.stride_w == 2 && rows.set_rows == 1) {
    three_by_three_rows<V, 2>(rows, f);
  } else {
    return false;
  }
  return true;
}

}  // namespace
}  // namespace pyedge
