// f32: vfmadd231ps, 16 multiply-adds. i8: vpdpbusd, 64 multiply-adds.
#include <immintrin.h>

#include <cstdint>

#include "kernels/peak/peak.h"

namespace pyedge {
namespace {

constexpr size_t kSums = 16;  // two ports times a latency of at most five, and to spare

volatile float f32_source = 0.5f;
volatile float f32_sink = 0.0f;
volatile char i8_source = 3;
volatile int32_t i32_sink = 0;

double f32(size_t rounds) {
  __m512 sum_f32x16[kSums];
  for (size_t i = 0; i < kSums; ++i) sum_f32x16[i] = _mm512_set1_ps(f32_source);
  const __m512 a_f32x16 = _mm512_set1_ps(f32_source), b_f32x16 = _mm512_set1_ps(f32_source);
  for (size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (size_t i = 0; i < kSums; ++i) {
      sum_f32x16[i] = _mm512_fmadd_ps(sum_f32x16[i], a_f32x16, b_f32x16);
    }
  }
  for (size_t i = 0; i < kSums; ++i) f32_sink = f32_sink + _mm512_cvtss_f32(sum_f32x16[i]);
  return 2.0 * 16.0 * static_cast<double>(rounds * kSums);
}

double i8(size_t rounds) {
  __m512i sum_i32x16[kSums];
  for (size_t i = 0; i < kSums; ++i) sum_i32x16[i] = _mm512_set1_epi8(i8_source);
  const __m512i a_u8x64 = _mm512_set1_epi8(i8_source), b_i8x64 = _mm512_set1_epi8(i8_source);
  for (size_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (size_t i = 0; i < kSums; ++i) {
      sum_i32x16[i] = _mm512_dpbusd_epi32(sum_i32x16[i], a_u8x64, b_i8x64);
    }
  }
  alignas(64) int32_t lanes[16];
  for (size_t i = 0; i < kSums; ++i) {
    _mm512_store_si512(lanes, sum_i32x16[i]);
    i32_sink = i32_sink ^ lanes[0];
  }
  return 2.0 * 64.0 * static_cast<double>(rounds * kSums);
}

}  // namespace

const PeakProbe peak_avx512vnni = {f32, i8};

}  // namespace pyedge
