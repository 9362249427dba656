// f32: vfmadd231ps, 8 multiply-adds. i8: vpmaddubsw, vpmaddwd, vpaddd, 32 multiply-adds.
#include <immintrin.h>

#include <cstdint>

#include "kernels/peak/peak.h"

namespace pyedge {
namespace {

constexpr size_t kSums = 10;  // two ports times a latency of at most five

volatile float f32_source = 0.5f;
volatile float f32_sink = 0.0f;
volatile char i8_source = 3;
volatile int32_t i32_sink = 0;

double f32(size_t rounds) {
  __m256 sum_f32x8[kSums];
  for (size_t i = 0; i < kSums; ++i) sum_f32x8[i] = _mm256_set1_ps(f32_source);
  const __m256 a_f32x8 = _mm256_set1_ps(f32_source), b_f32x8 = _mm256_set1_ps(f32_source);
  for (size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 10
    for (size_t i = 0; i < kSums; ++i) {
      sum_f32x8[i] = _mm256_fmadd_ps(sum_f32x8[i], a_f32x8, b_f32x8);
    }
  }
  for (size_t i = 0; i < kSums; ++i) f32_sink = f32_sink + _mm256_cvtss_f32(sum_f32x8[i]);
  return 2.0 * 8.0 * static_cast<double>(rounds * kSums);
}

double i8(size_t rounds) {
  __m256i sum_i32x8[kSums];
  for (size_t i = 0; i < kSums; ++i) sum_i32x8[i] = _mm256_set1_epi8(i8_source);
  const __m256i ones_i16x16 = _mm256_set1_epi16(1);
  const __m256i a_u8x32 = _mm256_set1_epi8(i8_source);
  for (size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 10
    for (size_t i = 0; i < kSums; ++i) {
      // The sum is an operand too: a product of constants would leave the loop.
      const __m256i pairs_i16x16 = _mm256_maddubs_epi16(a_u8x32, sum_i32x8[i]);
      sum_i32x8[i] = _mm256_add_epi32(sum_i32x8[i], _mm256_madd_epi16(pairs_i16x16, ones_i16x16));
    }
  }
  for (size_t i = 0; i < kSums; ++i) i32_sink = i32_sink ^ _mm256_extract_epi32(sum_i32x8[i], 0);
  return 2.0 * 32.0 * static_cast<double>(rounds * kSums);
}

}  // namespace

const PeakProbe peak_avx2 = {f32, i8};

}  // namespace pyedge
