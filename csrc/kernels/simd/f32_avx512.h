// Sixteen floats in a zmm register. Internal linkage: included only by files compiled for
// AVX-512.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace pyedge {
namespace {

struct F32Avx512 {
  using Vector = __m512;
  static constexpr int32_t kLanes = 16;
  static constexpr bool kMultipliesByLane = false;  // fma_lane

  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  // A load that GCC does not repeat for each use, as an operand of the instruction.
  static Vector load_once(const float* p) {
    Vector a = load(p);
    asm("" : "+v"(a));
    return a;
  }
  static Vector broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static Vector fill(float x) { return _mm512_set1_ps(x); }
  static void store(float* p, Vector a) { _mm512_storeu_ps(p, a); }
  // The first `lanes` lanes.
  static void store_first(float* p, Vector a, int32_t lanes) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << lanes) - 1u), a);
  }
  // Which lane of a vector each lane takes: int32 in memory.
  using Index = __m512i;
  static Index load_index(const void* p) { return _mm512_loadu_si512(p); }
  static Vector permute(Vector a, Index index) {
    return _mm512_maskz_permutexvar_ps(0xffff, index, a);
  }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector sub(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector div(Vector a, Vector b) { return _mm512_div_ps(a, b); }
  // a * 2^n, n standing in the low bits of a float's; both a and the result are normal.
  static Vector times_power(Vector a, Vector n) {
    const __m512i exponent = _mm512_maskz_slli_epi32(0xffff, _mm512_castps_si512(n), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), exponent));
  }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  // a < 0 ? a * slope : a
  static Vector prelu(Vector a, Vector slope) {
    const __mmask16 negative = _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mask_mul_ps(a, negative, a, slope);
  }
  // pyedge::clamp: NaN becomes lo. The plain forms warn of an uninitialized value in GCC 12.
  static Vector clamp(Vector a, Vector lo, Vector hi) {
    constexpr __mmask16 kAll = 0xffff;
    return _mm512_maskz_min_ps(kAll, _mm512_maskz_max_ps(kAll, a, lo), hi);
  }
};

}  // namespace
}  // namespace pyedge
