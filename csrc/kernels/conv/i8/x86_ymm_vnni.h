// What the INT8 convolutions take from 256-bit vectors with vpdpbusd, except the dot product
// itself, which AVX-VNNI and AVX512-VNNI encode differently, and the tile, as AVX-512 has twice as
// many registers. Internal linkage: every file that includes this gets its own copy, compiled for
// its own instruction set.
#pragma once

#include "kernels/conv/i8/dense.h"
#include "kernels/conv/i8/x86_ymm.h"

namespace pyedge {
namespace {

struct YmmVnni : Ymm {
  static constexpr size_t kGroup = 4;
  static constexpr I8Packing kPacking = I8Packing::plus_128;
  static constexpr size_t kDepthwisePixels = 2;

  static Int load_weights(const int8_t* p) { return load_vector(p); }
  static uint8_t* pack(const I8Run* runs, size_t count, int32_t, uint8_t* packed) {
    const Int bias = _mm256_set1_epi8(-128);
    for (size_t i = 0; i < count; ++i) {
      const int8_t* data = runs[i].data;
      for (size_t at = 0; at < runs[i].length; at += 32) {
        store_vector(packed + at, _mm256_xor_si256(load_vector(data + at), bias));
      }
      packed += runs[i].length;
    }
    return packed;
  }

  static Int packed_zero_point(int32_t zero_point) {
    return _mm256_set1_epi8(static_cast<char>(zero_point + 128));
  }
  static void interleave(const int8_t* const* pixels, int32_t, Int* column) {
    const Int bias = _mm256_set1_epi8(-128);
    const Int a = _mm256_xor_si256(load_vector(pixels[0]), bias);
    const Int b = _mm256_xor_si256(load_vector(pixels[1]), bias);
    const Int c = _mm256_xor_si256(load_vector(pixels[2]), bias);
    const Int d = _mm256_xor_si256(load_vector(pixels[3]), bias);
    const Int ab_low = _mm256_unpacklo_epi8(a, b), ab_high = _mm256_unpackhi_epi8(a, b);
    const Int cd_low = _mm256_unpacklo_epi8(c, d), cd_high = _mm256_unpackhi_epi8(c, d);
    column[0] = _mm256_unpacklo_epi16(ab_low, cd_low);
    column[1] = _mm256_unpackhi_epi16(ab_low, cd_low);
    column[2] = _mm256_unpacklo_epi16(ab_high, cd_high);
    column[3] = _mm256_unpackhi_epi16(ab_high, cd_high);
  }
};

}  // namespace
}  // namespace pyedge
