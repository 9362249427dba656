// INT8 convolution on vpmaddwd: two products of signed 16-bit integers summed into an int32 lane.
// Activations are widened once, when they are packed, and weights when they are loaded. On bytes,
// vpsignb + vpmaddubsw + vpmaddwd would be exact too; that takes as many operations, of which
// fewer run side by side.
//
// Exact: |q - zero_point| <= 255 and |w| <= 128, so a pair sums to at most 65280 in magnitude; the
// accumulator is the true partial sum, which fits in int32 (validation bounds the taps).
#include <immintrin.h>

#include "kernels/conv/i8/dense_panel.h"
#include "kernels/conv/i8/depthwise_row.h"
#include "kernels/conv/i8/winograd_tile.h"
#include "kernels/conv/i8/x86_ymm.h"

namespace pyedge {
namespace {

struct Avx2 : Ymm {
  static constexpr size_t kGroup = 2;
  static constexpr I8Packing kPacking = I8Packing::centred;
  static constexpr size_t kTileVectors = 2, kTilePixels = 6;  // 12 accumulators of 16 registers
  static constexpr size_t kDepthwisePixels = 2;

  static Int widen(const int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static Int load_weights(const int8_t* p) { return widen(p); }
  static Int dot(Int acc, Int a, Int w) { return _mm256_add_epi32(acc, _mm256_madd_epi16(a, w)); }

  static uint8_t* pack(const I8Run* runs, size_t count, int32_t zero_point, uint8_t* packed) {
    const Int zero = _mm256_set1_epi16(static_cast<short>(zero_point));
    for (size_t i = 0; i < count; ++i) {
      const int8_t* data = runs[i].data;
      for (size_t at = 0; at < runs[i].length; at += 16) {
        store_vector(packed + 2 * at, _mm256_sub_epi16(widen(data + at), zero));
      }
      packed += 2 * runs[i].length;
    }
    return packed;
  }

  static Int packed_zero_point(int32_t) { return _mm256_setzero_si256(); }
  static void interleave(const int8_t* const* pixels, int32_t zero_point, Int* column) {
    const Int zero = _mm256_set1_epi16(static_cast<short>(zero_point));
    const Int a = load_vector(pixels[0]), b = load_vector(pixels[1]);
    const Int low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
    column[0] = _mm256_unpacklo_epi8(low, low), column[1] = _mm256_unpackhi_epi8(low, low);
    column[2] = _mm256_unpacklo_epi8(high, high), column[3] = _mm256_unpackhi_epi8(high, high);
    for (size_t v = 0; v < 4; ++v) {
      column[v] = _mm256_sub_epi16(_mm256_srai_epi16(column[v], 8), zero);
    }
  }
};

struct Avx2Winograd : Ymm {
  using Short = __m256i;
  using Finish = Ymm;
  static constexpr size_t kInts = 8, kShorts = 16;
  static constexpr size_t kPassVectors = 2, kTiles = 6;  // 12 accumulators of 16 registers
  static constexpr I8WinogradTimes kTimes = {1.0 / 82, 29.0, 2.3, 4.6};

  static Short widen(const int8_t* p) { return Avx2::widen(p); }
  static Short load16(const int16_t* p) { return load_vector(p); }
  static void store16(int16_t* p, Short x) { store_vector(p, x); }
  static Short broadcast_pair(const int16_t* p) {
    return broadcast(reinterpret_cast<const uint8_t*>(p));
  }
  static Short fill16(int32_t x) { return _mm256_set1_epi16(static_cast<short>(x)); }
  static Short add16(Short a, Short b) { return _mm256_add_epi16(a, b); }
  static Short sub16(Short a, Short b) { return _mm256_sub_epi16(a, b); }
  static Short mul16(Short a, Short b) { return _mm256_mullo_epi16(a, b); }
  template <int kBits>
  static Short shl16(Short a) {
    return _mm256_slli_epi16(a, kBits);
  }

  static Int dot16(Int acc, Short a, Short w) { return Avx2::dot(acc, a, w); }
  static Int zero() { return _mm256_setzero_si256(); }
  static Int fill32(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
  static Int add32(Int a, Int b) { return _mm256_add_epi32(a, b); }
  static Int sub32(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  static Int mul32(Int a, Int b) { return _mm256_mullo_epi32(a, b); }
  template <int kBits>
  static Int shl32(Int a) {
    return _mm256_slli_epi32(a, kBits);
  }
  template <int kBits>
  static Int sra32(Int a) {
    return _mm256_srai_epi32(a, kBits);
  }
};

double dense_cost(const OpArgs& args) {
  return i8_dense_ns(args, 1.0 / 80) / i8_dense_ns(args, kI8VnniProduct);
}

}  // namespace

extern const Kernel conv_i8_avx2 =
    i8_dense_kernel<Avx2, Avx2>("conv_i8_avx2", Isa::avx2, dense_cost);
extern const Kernel conv_i8_depthwise_avx2 =
    i8_depthwise_kernel<Avx2, Avx2>("conv_i8_depthwise_avx2", Isa::avx2);
extern const Kernel conv_i8_winograd_avx2 =
    i8_winograd_kernel<Avx2Winograd>("conv_i8_winograd_avx2", Isa::avx2);

}  // namespace pyedge
