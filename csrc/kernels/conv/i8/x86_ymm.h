// What the INT8 convolutions take from 256-bit vectors, whatever the dot product. Internal linkage:
// every file that includes this gets its own copy, compiled for its own instruction set.
#pragma once

#include <immintrin.h>

#include "kernels/conv/i8/layout.h"
#include "kernels/simd/f32_avx2.h"

namespace pyedge {
namespace {

struct Ymm {
  using Int = __m256i;
  using Float = __m256;
  using F32 = F32Avx2;
  static constexpr size_t kLanes = 8;
  static constexpr float kExact = 1e9f;  // of the conversion to int32

  static Int load_vector(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static void store_vector(void* p, Int x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }

  static Int load(const int32_t* p) { return load_vector(p); }
  static void store(int32_t* p, Int x) { store_vector(p, x); }
  static Int in_register(Int x) {
    __asm__("" : "+v"(x));
    return x;
  }
  // Four bytes of packed activations in every lane.
  static Int broadcast(const uint8_t* p) {
    int32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof bytes);
    return _mm256_set1_epi32(bytes);
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
  static Float prelu_max(Float x, Float slope) { return _mm256_max_ps(x, _mm256_mul_ps(x, slope)); }

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
}  // namespace pyedge
