// f32: as AVX2. i8: vpdpbusd in its VEX encoding, 32 multiply-adds.
#include <immintrin.h>

#include <cstdint>

#include "kernels/peak/peak.h"

namespace pyedge {
namespace {

constexpr size_t kSums = 10;  // two ports times a latency of five

volatile char i8_source = 3;
volatile int32_t i32_sink = 0;

double f32(size_t rounds) { return peak_avx2.f32(rounds); }

double i8(size_t rounds) {
  __m256i sum_i32x8[kSums];
  for (size_t i = 0; i < kSums; ++i) sum_i32x8[i] = _mm256_set1_epi8(i8_source);
  const __m256i a_u8x32 = _mm256_set1_epi8(i8_source), b_i8x32 = _mm256_set1_epi8(i8_source);
  for (size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 10
    for (size_t i = 0; i < kSums; ++i) {
      sum_i32x8[i] = _mm256_dpbusd_avx_epi32(sum_i32x8[i], a_u8x32, b_i8x32);
    }
  }
  for (size_t i = 0; i < kSums; ++i) i32_sink = i32_sink ^ _mm256_extract_epi32(sum_i32x8[i], 0);
  return 2.0 * 32.0 * static_cast<double>(rounds * kSums);
}

}  // namespace

const PeakProbe peak_avxvnni = {f32, i8};

}  // namespace pyedge
