// INT8 convolution on vpmaddwd: two products of signed 16-bit integers summed into an int32 lane.
// Activations are widened once, when they are packed, and weights when they are loaded. (On bytes,
// vpsignb + vpmaddubsw + vpmaddwd would be exact too, but takes as many operations.)
//
// Exact: |q - zero_point| <= 255 and |w| <= 128, so a pair sums to at most 65280 in magnitude; the
// accumulator is the true partial sum, which fits in int32 (validation bounds the taps).
#include <immintrin.h>

#include "kernels/conv/i8/dense_panel.h"
#include "kernels/conv/i8/depthwise_row.h"

namespace pyedge {
namespace {

struct Avx2 {
  using Int = __m256i;
  using Float = __m256;
  static constexpr size_t kLanes = 8, kGroup = 2;
  static constexpr bool kBiased = false;
  static constexpr size_t kTileVectors = 2, kTilePixels = 6;  // 12 accumulators of 16 registers

  static Int load_vector(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static void store_vector(void* p, Int x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
  static Int widen(const int8_t* p) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }

  static Int load(const int32_t* p) { return load_vector(p); }
  static void store(int32_t* p, Int x) { store_vector(p, x); }
  static Int load_weights(const int8_t* p) { return widen(p); }
  static Int broadcast(const uint8_t* p) {
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof pair);
    return _mm256_set1_epi32(pair);
  }
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

  static Float load(const float* p) { return _mm256_loadu_ps(p); }
  static Float fill(float x) { return _mm256_set1_ps(x); }
  static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static Float to_float(Int x) { return _mm256_cvtepi32_ps(x); }
  static Int round(Float x) { return _mm256_cvtps_epi32(x); }
  static Float clamp(Float x, Float lo, Float hi) {
    return _mm256_min_ps(_mm256_max_ps(x, lo), hi);
  }
  static Float prelu(Float x, Float slope) {
    const Float negative = _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ);
    return _mm256_blendv_ps(x, _mm256_mul_ps(x, slope), negative);
  }

  // Of 32 channels, reading past the last; q - zero_point.
  static void load_block(const int8_t* p, int32_t zero_point, Int* q) {
    const Int zero = _mm256_set1_epi32(zero_point), bytes = load_vector(p);
    const Int low = _mm256_unpacklo_epi8(bytes, bytes), high = _mm256_unpackhi_epi8(bytes, bytes);
    q[0] = _mm256_unpacklo_epi16(low, low), q[1] = _mm256_unpackhi_epi16(low, low);
    q[2] = _mm256_unpacklo_epi16(high, high), q[3] = _mm256_unpackhi_epi16(high, high);
    for (size_t v = 0; v < 4; ++v) q[v] = _mm256_sub_epi32(_mm256_srai_epi32(q[v], 24), zero);
  }
  static void store_block(int8_t* p, const Int* q, int32_t zero_point, size_t count) {
    const Int zero = _mm256_set1_epi16(static_cast<short>(zero_point));
    const Int low = _mm256_adds_epi16(_mm256_packs_epi32(q[0], q[1]), zero);
    const Int high = _mm256_adds_epi16(_mm256_packs_epi32(q[2], q[3]), zero);
    const Int bytes = _mm256_packs_epi16(low, high);
    if (count == 32) {
      store_vector(p, bytes);
    } else {
      alignas(32) int8_t block[32];
      store_vector(block, bytes);
      __builtin_memcpy(p, block, count);
    }
  }

  // From the order of the lanes to that of the channels.
  static void channel_order(Float* y) {
    const Float a = y[0], b = y[1], c = y[2], d = y[3];
    y[0] = _mm256_permute2f128_ps(a, b, 0x20), y[1] = _mm256_permute2f128_ps(c, d, 0x20);
    y[2] = _mm256_permute2f128_ps(a, b, 0x31), y[3] = _mm256_permute2f128_ps(c, d, 0x31);
  }
  static Int first(size_t count) {
    const int32_t lanes = static_cast<int32_t>(count < kLanes ? count : kLanes);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static Float load_first(const float* p, size_t count) {
    return _mm256_maskload_ps(p, first(count));
  }
  static void store_first(float* p, Float x, size_t count) {
    _mm256_maskstore_ps(p, first(count), x);
  }
};

}  // namespace

extern const Kernel conv_i8_avx2 = i8_dense_kernel<Avx2>("conv_i8_avx2", Isa::avx2);
extern const Kernel conv_i8_depthwise_avx2 =
    i8_depthwise_kernel<Avx2>("conv_i8_depthwise_avx2", Isa::avx2);

}  // namespace pyedge
