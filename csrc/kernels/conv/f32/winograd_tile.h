// The transforms of winograd.h over a vector type. Internal linkage: every file that includes
// this gets its own copy, compiled for its own instruction set. Lanes are channels.
#pragma once

#include "kernels/conv/f32/dense_tile.h"
#include "kernels/conv/f32/finish.h"
#include "kernels/conv/f32/winograd.h"

namespace pyedge {
namespace {

constexpr float kSqrt2 = 1.41421356f, kSqrtHalf = 0.70710678f;

// a + b * c
template <class V>
typename V::Vector add_times(typename V::Vector a, typename V::Vector b, float c) {
  return V::fma(b, V::fill(c), a);
}

// One dimension of F(2, 3): v = B' d and y = A' s.
template <class V>
struct Winograd2 {
  using Vector = typename V::Vector;
  static constexpr int kOutputs = 2;

  static void input(const Vector* d, Vector* v) {
    v[0] = add_times<V>(d[0], d[2], -1.0f);
    v[1] = V::add(d[2], d[1]);
    v[2] = add_times<V>(d[2], d[1], -1.0f);
    v[3] = add_times<V>(d[3], d[1], -1.0f);
  }
  static void output(const Vector* s, Vector* y) {
    y[0] = V::add(V::add(s[0], s[1]), s[2]);
    y[1] = add_times<V>(V::add(s[1], s[3]), s[2], -1.0f);
  }
};

// One dimension of F(4, 3).
template <class V>
struct Winograd4 {
  using Vector = typename V::Vector;
  static constexpr int kOutputs = 4;

  static void input(const Vector* d, Vector* v) {
    const Vector even_half = add_times<V>(d[4], d[2], -2.0f);
    const Vector odd_half = add_times<V>(d[3], d[1], -2.0f);
    const Vector even_two = add_times<V>(d[4], d[2], -0.5f);
    const Vector odd_two = add_times<V>(d[3], d[1], -0.5f);
    v[0] = add_times<V>(V::add(d[0], d[4]), d[2], -2.5f);
    v[1] = add_times<V>(even_half, odd_half, kSqrtHalf);
    v[2] = add_times<V>(even_half, odd_half, -kSqrtHalf);
    v[3] = add_times<V>(even_two, odd_two, kSqrt2);
    v[4] = add_times<V>(even_two, odd_two, -kSqrt2);
    v[5] = add_times<V>(V::add(d[1], d[5]), d[3], -2.5f);
  }
  static void output(const Vector* s, Vector* y) {
    const Vector zero = V::fill(0.0f);
    const Vector sum_half = V::add(s[1], s[2]), difference_half = add_times<V>(s[1], s[2], -1.0f);
    const Vector sum_two = V::add(s[3], s[4]), difference_two = add_times<V>(s[3], s[4], -1.0f);
    y[0] = V::add(V::add(s[0], sum_half), sum_two);
    y[1] = add_times<V>(zero, add_times<V>(difference_half, difference_two, 2.0f), kSqrtHalf);
    y[2] = add_times<V>(zero, add_times<V>(sum_half, sum_two, 4.0f), 0.5f);
    y[3] = add_times<V>(s[5], add_times<V>(difference_half, difference_two, 8.0f), 0.25f * kSqrt2);
  }
};

template <class V, class F>
void winograd_input(const F32WinogradInput& tile) {
  using Vector = typename V::Vector;
  constexpr int n = F::kOutputs + 2;
  for (size_t c = 0; c < tile.channels; c += V::kLanes) {
    Vector rows[n][n];  // transposed
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) {
      Vector d[n], v[n];
#pragma GCC unroll 8
      for (int j = 0; j < n; ++j) d[j] = V::load(tile.pixels[i * n + j] + c);
      F::input(d, v);
#pragma GCC unroll 8
      for (int j = 0; j < n; ++j) rows[j][i] = v[j];
    }
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      Vector v[n];
      F::input(rows[j], v);
#pragma GCC unroll 8
      for (int i = 0; i < n; ++i) {
        V::store(tile.v + static_cast<size_t>(i * n + j) * tile.position_stride + c, v[i]);
      }
    }
  }
}

template <class V, class F>
void winograd_output(const F32WinogradOutput& tile) {
  using Vector = typename V::Vector;
  constexpr int m = F::kOutputs, n = m + 2;
  for (size_t c = 0; c < tile.channels; c += V::kLanes) {
    Vector columns[m][n];
#pragma GCC unroll 8
    for (int j = 0; j < n; ++j) {
      Vector s[n], y[m];
#pragma GCC unroll 8
      for (int i = 0; i < n; ++i) {
        s[i] = V::load(tile.sums + static_cast<size_t>(i * n + j) * tile.position_stride + c);
      }
      F::output(s, y);
#pragma GCC unroll 8
      for (int i = 0; i < m; ++i) columns[i][j] = y[i];
    }
    const Vector bias = V::load(tile.bias + c);
    const float* slope = tile.slope ? tile.slope + c : nullptr;
#pragma GCC unroll 8
    for (int i = 0; i < m; ++i) {
      if (static_cast<size_t>(i) >= tile.rows) break;
      Vector y[m];
      F::output(columns[i], y);
#pragma GCC unroll 8
      for (int j = 0; j < m; ++j) y[j] = V::add(y[j], bias);
      const size_t row = static_cast<size_t>(i) * tile.y_row + c, lanes = tile.channels - c;
      const float* residual = tile.residual ? tile.residual + row : nullptr;
      if (tile.columns == m) {
        finish<V>(y, residual, slope, tile.activation, tile.lo, tile.hi, tile.y + row, tile.y_pixel,
                  lanes);
        continue;
      }
      for (size_t j = 0; j < tile.columns; ++j) {
        const size_t at = j * tile.y_pixel;
        Vector one[] = {y[j]};
        finish<V>(one, residual ? residual + at : nullptr, slope, tile.activation, tile.lo, tile.hi,
                  tile.y + row + at, tile.y_pixel, lanes);
      }
    }
  }
}

template <class V, template <class> class F, const F32Dense& kDense>
constexpr F32Winograd f32_winograd() {
  return {&kDense, F<V>::kOutputs, winograd_input<V, F<V>>, winograd_output<V, F<V>>};
}

// The row of the table of kernels for an instruction set.
template <const F32Winograd& kIsa>
constexpr Kernel f32_winograd_kernel(const char* name, Isa isa) {
  return {name,
          Op::k_conv,
          isa,
          f32_winograd_accepts,
          [](const OpArgs& args) { return f32_winograd_cost(args, kIsa); },
          [](const OpArgs& args) { return f32_winograd_prepared_bytes(args, kIsa); },
          [](const OpArgs& args, void* prepared) { f32_winograd_prepare(args, kIsa, prepared); },
          [](const OpArgs& args) { return f32_winograd_scratch_bytes(args, kIsa); },
          [](const OpArgs& args) { return f32_winograd_tasks(args, kIsa); },
          [](const OpArgs& args, const void* prepared, void* scratch, size_t begin, size_t end) {
            f32_winograd_run(args, kIsa, prepared, scratch, begin, end);
          },
          kConvPacks};
}

}  // namespace
}  // namespace pyedge
