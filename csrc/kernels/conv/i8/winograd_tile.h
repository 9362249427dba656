// The functions of winograd.h over a vector type. Internal linkage: every file that includes this
// gets its own copy, compiled for its own instruction set.
#pragma once

#include "kernels/conv/i8/finish.h"
#include "kernels/conv/i8/winograd.h"

namespace pyedge {
namespace {

// How many points and outputs a tile has along one dimension.
constexpr size_t winograd_points(bool half) { return half ? 4 : 6; }
constexpr size_t winograd_outputs(bool half) { return half ? 2 : 4; }
constexpr size_t winograd_point(bool half, size_t i) { return half ? kWinogradHalf[i] : i; }
// s of one dimension: A^T yields 3 * 2^s * Y.
constexpr int winograd_shift(bool half, size_t output) {
  return !half && output == 0 ? 3 : !half && output == 1 ? 2 : 1;
}

// B^T d.
template <class V, bool kHalf>
inline void winograd_input_line(const typename V::Short* d, typename V::Short* t) {
  using Short = typename V::Short;
  if constexpr (kHalf) {
    const Short plus = V::add16(d[1], d[2]), minus = V::sub16(d[2], d[1]);
    t[0] = V::sub16(d[0], d[2]);
    t[1] = V::add16(V::template shl16<1>(plus), plus);
    t[2] = V::add16(V::template shl16<1>(minus), minus);
    t[3] = V::sub16(d[3], d[1]);
  } else {
    const Short even = V::sub16(d[4], V::template shl16<2>(d[2]));
    const Short odd = V::sub16(d[3], V::template shl16<2>(d[1]));
    const Short d42 = V::sub16(d[4], d[2]);
    const Short d31 = V::template shl16<1>(V::sub16(d[3], d[1]));
    t[0] = V::add16(V::template shl16<2>(V::sub16(d[0], d[2])), d42);
    t[1] = V::add16(even, odd);
    t[2] = V::sub16(even, odd);
    t[3] = V::add16(d42, d31);
    t[4] = V::sub16(d42, d31);
    t[5] = V::sub16(V::sub16(d[5], d[3]), V::template shl16<1>(d31));
  }
}

template <class V, bool kHalfRows, bool kHalfColumns>
void winograd_input_tile(const I8WinogradInput& in) {
  constexpr size_t kRows = winograd_points(kHalfRows), kColumns = winograd_points(kHalfColumns);
  const typename V::Short zero_point = V::fill16(in.zero_point);
  for (size_t c = 0; c < in.channels; c += V::kShorts) {
    int16_t* to = in.to + c / kWinogradPart * in.part_stride + c % kWinogradPart;
    typename V::Short lines[kRows][kColumns];
    unrolled<kColumns>([&](size_t column) {
      typename V::Short d[kRows], t[kRows];
      unrolled<kRows>(
          [&](size_t row) { d[row] = V::sub16(V::widen(in.pixels[row][column] + c), zero_point); });
      winograd_input_line<V, kHalfRows>(d, t);
      unrolled<kRows>([&](size_t row) { lines[row][column] = t[row]; });
    });
    unrolled<kRows>([&](size_t row) {
      typename V::Short t[kColumns];
      winograd_input_line<V, kHalfColumns>(lines[row], t);
      unrolled<kColumns>([&](size_t column) {
        const size_t point =
            winograd_point(kHalfRows, row) * kWinogradPoints + winograd_point(kHalfColumns, column);
        V::store16(to + point * in.point_stride, t[column]);
      });
    });
  }
}

template <class V>
void winograd_input(const I8WinogradInput& in) {
  if (in.half_rows && in.half_columns) {
    winograd_input_tile<V, true, true>(in);
  } else if (in.half_rows) {
    winograd_input_tile<V, true, false>(in);
  } else if (in.half_columns) {
    winograd_input_tile<V, false, true>(in);
  } else {
    winograd_input_tile<V, false, false>(in);
  }
}

// G w.
template <class V>
inline void winograd_weight_line(const typename V::Short* w, typename V::Short* t) {
  using Short = typename V::Short;
  const Short six = V::in_register(V::fill16(6));  // or compilers shift and add instead
  const Short outer = V::add16(w[0], w[2]);
  const Short even = V::add16(w[0], V::template shl16<2>(w[2]));
  const Short odd = V::template shl16<1>(w[1]);
  t[0] = V::mul16(w[0], six);
  t[1] = V::add16(outer, w[1]);
  t[2] = V::sub16(outer, w[1]);
  t[3] = V::add16(even, odd);
  t[4] = V::sub16(even, odd);
  t[5] = V::mul16(w[2], six);
}

template <class V>
void winograd_weights(const int8_t* packed, size_t steps, int16_t* to) {
  constexpr size_t kBlock = 2 * V::Finish::kLanes * kI8BlockVectors;  // int16 of a step
  constexpr size_t kPointStride = winograd_weight_stride(kBlock / 2);
  constexpr size_t kPass = V::kPassVectors * V::kShorts;
  for (size_t step = 0; step < steps; ++step, packed += kWinogradTaps * kBlock) {
    for (size_t at = 0; at < kBlock; at += V::kShorts) {
      typename V::Short lines[kWinogradPoints][3];
      for (size_t column = 0; column < 3; ++column) {
        typename V::Short w[3], t[kWinogradPoints];
        for (size_t row = 0; row < 3; ++row) {
          w[row] = V::widen(packed + (row * 3 + column) * kBlock + at);
        }
        winograd_weight_line<V>(w, t);
        for (size_t row = 0; row < kWinogradPoints; ++row) lines[row][column] = t[row];
      }
      int16_t* point = to + (at / kPass * steps + step) * kPass + at % kPass;
      for (size_t row = 0; row < kWinogradPoints; ++row) {
        typename V::Short t[kWinogradPoints];
        winograd_weight_line<V>(lines[row], t);
        for (size_t column = 0; column < kWinogradPoints; ++column, point += kPointStride) {
          V::store16(point, t[column]);
        }
      }
    }
  }
}

template <class V, size_t kTiles>
void winograd_products(const I8WinogradProduct& p, const int16_t* rows, const int16_t* w,
                       int32_t* sums) {
  constexpr size_t kBlock = V::Finish::kLanes * kI8BlockVectors;
  constexpr size_t kVectors = V::kPassVectors;
  typename V::Int acc[kTiles * kVectors];
  unrolled<kTiles * kVectors>([&](size_t i) { acc[i] = V::zero(); });
  for (size_t step = 0; step < p.steps; ++step, rows += 2, w += kVectors * V::kShorts) {
    typename V::Short weights[kVectors];
    unrolled<kVectors>([&](size_t v) { weights[v] = V::load16(w + v * V::kShorts); });
    unrolled<kTiles>([&](size_t i) {
      const typename V::Short activations = V::broadcast_pair(rows + i * kWinogradPart);
      unrolled<kVectors>([&](size_t v) {
        acc[i * kVectors + v] = V::dot16(acc[i * kVectors + v], activations, weights[v]);
      });
    });
  }
  unrolled<kTiles * kVectors>([&](size_t i) {
    int32_t* sum = sums + i / kVectors * kBlock + i % kVectors * V::kInts;
    V::store(sum, p.first ? acc[i] : V::add32(acc[i], V::load(sum)));
  });
}

// winograd_products for every number of tiles up to V::kTiles.
template <class V, size_t kTiles>
inline void winograd_products_of(size_t tiles, const I8WinogradProduct& p, const int16_t* rows,
                                 const int16_t* w, int32_t* sums) {
  if (tiles == kTiles) {
    winograd_products<V, kTiles>(p, rows, w, sums);
  } else if constexpr (kTiles > 1) {
    winograd_products_of<V, kTiles - 1>(tiles, p, rows, w, sums);
  }
}

template <class V>
void winograd_multiply(const I8WinogradProduct& p) {
  constexpr size_t kBlock = V::Finish::kLanes * kI8BlockVectors;
  constexpr size_t kPassChannels = V::kPassVectors * V::kInts;
  const size_t groups = (p.tiles + V::kTiles - 1) / V::kTiles;
  for (size_t channel = 0; channel < kBlock; channel += kPassChannels) {
    for (size_t group = 0; group < groups; ++group) {
      const size_t first = group * p.tiles / groups, end = (group + 1) * p.tiles / groups;
      winograd_products_of<V, V::kTiles>(end - first, p, p.activations + first * kWinogradPart,
                                         p.weights + channel * 2 * p.steps,
                                         p.sums + first * kBlock + channel);
    }
  }
}

// A^T m; see winograd.h.
template <class V, bool kHalf>
inline void winograd_output_line(const typename V::Int* m, typename V::Int* z) {
  using Int = typename V::Int;
  const Int p = V::add32(m[1], m[2]), q = V::sub32(m[1], m[2]);
  if constexpr (kHalf) {
    z[0] = V::add32(m[0], p);
    z[1] = V::add32(q, m[3]);
  } else {
    const Int r = V::add32(m[3], m[4]), t = V::sub32(m[3], m[4]);
    z[0] = V::add32(V::sub32(m[0], V::template shl32<2>(p)), r);
    z[1] = V::sub32(t, V::template shl32<1>(q));
    z[2] = V::sub32(r, p);
    z[3] = V::add32(V::sub32(V::template shl32<1>(t), q), m[5]);
  }
}

constexpr int kMaxShift = 6;

// The accumulators of a tile: [kWinogradTile][kWinogradTile][block].
template <class V, bool kHalfRows, bool kHalfColumns>
void winograd_accumulators(const int32_t* sums, size_t point_stride, int32_t* acc) {
  constexpr size_t kBlock = V::Finish::kLanes * kI8BlockVectors;
  constexpr size_t kRows = winograd_points(kHalfRows), kColumns = winograd_points(kHalfColumns);
  for (size_t c = 0; c < kBlock; c += V::kInts) {
    typename V::Int lines[winograd_outputs(kHalfRows)][kColumns];
    for (size_t column = 0; column < kColumns; ++column) {
      typename V::Int m[kRows], z[winograd_outputs(kHalfRows)];
      for (size_t row = 0; row < kRows; ++row) {
        const size_t point =
            winograd_point(kHalfRows, row) * kWinogradPoints + winograd_point(kHalfColumns, column);
        m[row] = V::load(sums + point * point_stride + c);
      }
      winograd_output_line<V, kHalfRows>(m, z);
      for (size_t row = 0; row < winograd_outputs(kHalfRows); ++row) lines[row][column] = z[row];
    }
    for (size_t row = 0; row < winograd_outputs(kHalfRows); ++row) {
      typename V::Int z[winograd_outputs(kHalfColumns)];
      winograd_output_line<V, kHalfColumns>(lines[row], z);
      for (size_t column = 0; column < winograd_outputs(kHalfColumns); ++column) {
        const int shift = winograd_shift(kHalfRows, row) + winograd_shift(kHalfColumns, column);
        const typename V::Int scaled =
            V::mul32(z[column], V::fill32(kInverseOf9 << (kMaxShift - shift)));
        V::store(acc + (row * kWinogradTile + column) * kBlock + c,
                 V::template sra32<kMaxShift>(scaled));
      }
    }
  }
}

template <class V>
void winograd_output(const I8WinogradOutput& out, const I8Finish& f) {
  using F = typename V::Finish;
  with_finish<F>(f, out.channels, out.channel_count, [&](const auto& finish) {
    constexpr size_t kBlock = F::kLanes * kI8BlockVectors;
    alignas(kAlignment) int32_t acc[kWinogradTile * kWinogradTile * kBlock];
    for (size_t i = 0; i < out.tile_count; ++i) {
      const I8WinogradTile& tile = out.tiles[i];
      const int32_t* sums = out.sums + i * kBlock;
      if (tile.half_rows && tile.half_columns) {
        winograd_accumulators<V, true, true>(sums, out.point_stride, acc);
      } else if (tile.half_rows) {
        winograd_accumulators<V, true, false>(sums, out.point_stride, acc);
      } else if (tile.half_columns) {
        winograd_accumulators<V, false, true>(sums, out.point_stride, acc);
      } else {
        winograd_accumulators<V, false, false>(sums, out.point_stride, acc);
      }
      for (size_t row = 0; row < tile.rows; ++row) {
        const int32_t* pixel = acc + row * kWinogradTile * kBlock;
        size_t at = tile.at + out.first_channel + row * out.row_stride;
        for (size_t column = 0; column < tile.columns; ++column, at += f.y_stride) {
          typename F::Int block[kI8BlockVectors];
          for (size_t v = 0; v < kI8BlockVectors; ++v) {
            block[v] = F::load(pixel + column * kBlock + v * F::kLanes);
          }
          finish(block, at);
        }
      }
    }
  });
}

template <class V>
constexpr I8Winograd kWinograd = {{V::Finish::kLanes, 2, I8Packing::centred, V::Finish::kExact},
                                  V::kShorts,
                                  winograd_input<V>,
                                  winograd_weights<V>,
                                  winograd_multiply<V>,
                                  winograd_output<V>,
                                  V::kTimes};

// The row of the table of kernels for an instruction set.
template <class V>
constexpr Kernel i8_winograd_kernel(const char* name, Isa isa) {
  return {
      name,
      Op::k_conv,
      isa,
      i8_winograd_accepts,
      [](const OpArgs& args) { return i8_winograd_cost(args, kWinograd<V>); },
      [](const OpArgs& args) { return i8_winograd_prepared_bytes(args, kWinograd<V>); },
      [](const OpArgs& args, void* prepared) { i8_winograd_prepare(args, kWinograd<V>, prepared); },
      [](const OpArgs& args) { return i8_winograd_scratch_bytes(args, kWinograd<V>); },
      [](const OpArgs& args) { return i8_winograd_tasks(args, kWinograd<V>); },
      [](const OpArgs& args, const void* prepared, void* scratch, size_t begin, size_t end) {
        i8_winograd_run(args, kWinograd<V>, prepared, scratch, begin, end);
      },
      kConvPacks,
      0,
      i8_winograd_suits};
}

}  // namespace
}  // namespace pyedge
