// Eight floats in a ymm register. Internal linkage: included only by files compiled for AVX2.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace pyedge {
namespace {

struct F32Avx2 {
  using Vector = __m256;
  static constexpr int32_t kLanes = 8;
  static constexpr bool kMultipliesByLane = false;  // fma_lane

  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  // A load that GCC does not repeat for each use, as an operand of the instruction.
  static Vector load_once(const float* p) {
    Vector a = load(p);
    asm("" : "+x"(a));
    return a;
  }
  static Vector broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  static Vector fill(float x) { return _mm256_set1_ps(x); }
  static void store(float* p, Vector a) { _mm256_storeu_ps(p, a); }
  // The first `lanes` lanes.
  static void store_first(float* p, Vector a, int32_t lanes) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), lane), a);
  }
  // Which lane of a vector each lane takes: int32 in memory.
  using Index = __m256i;
  static Index load_index(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  static Vector permute(Vector a, Index index) { return _mm256_permutevar8x32_ps(a, index); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector sub(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
  static Vector mul(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
  static Vector div(Vector a, Vector b) { return _mm256_div_ps(a, b); }
  // a * 2^n, n standing in the low bits of a float's; both a and the result are normal.
  static Vector times_power(Vector a, Vector n) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponent));
  }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  // a < 0 ? a * slope : a
  static Vector prelu(Vector a, Vector slope) {
    const Vector negative = _mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_LT_OQ);
    return _mm256_blendv_ps(a, _mm256_mul_ps(a, slope), negative);
  }
  // pyedge::clamp: NaN becomes lo.
  static Vector clamp(Vector a, Vector lo, Vector hi) {
    return _mm256_min_ps(_mm256_max_ps(a, lo), hi);
  }
};

}  // namespace
}  // namespace pyedge
