// What the INT8 convolutions take from 512-bit vectors with vpdpbusd. Internal linkage: every file
// that includes this gets its own copy, compiled for its own instruction set.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the undefined operands inside its own intrinsics for ours (its bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "kernels/conv/i8/x86_ymm_vnni.h"
#include "kernels/simd/f32_avx512.h"

namespace pyedge {
namespace {

struct Vnni {
  using Int = __m512i;
  using Float = __m512;
  using F32 = F32Avx512;
  static constexpr size_t kLanes = 16, kGroup = 4;
  static constexpr float kExact = 1e9f;  // of the conversion to int32
  static constexpr I8Packing kPacking = I8Packing::plus_128;
  static constexpr size_t kTileVectors = 4, kTilePixels = 6;  // 24 accumulators of 32 registers
  static constexpr size_t kDepthwisePixels = 2;

  static Int load(const int32_t* p) { return _mm512_loadu_si512(p); }
  static void store(int32_t* p, Int x) { _mm512_storeu_si512(p, x); }
  static Int load_weights(const int8_t* p) { return _mm512_loadu_si512(p); }
  static Int in_register(Int x) {
    __asm__("" : "+v"(x));
    return x;
  }
  static Int broadcast(const uint8_t* p) {
    int32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof bytes);
    return _mm512_set1_epi32(bytes);
  }
  static Int dot(Int acc, Int a, Int w) { return _mm512_dpbusd_epi32(acc, a, w); }

  // Copies the runs one behind the other, every byte xor `flipped`.
  static uint8_t* copy(const I8Run* runs, size_t count, char flipped, uint8_t* packed) {
    const Int bits = _mm512_set1_epi8(flipped);
    for (size_t i = 0; i < count; ++i) {
      const int8_t* data = runs[i].data;
      const size_t length = runs[i].length;
      size_t at = 0;
      for (; at + 64 <= length; at += 64) {
        _mm512_storeu_si512(packed + at, _mm512_xor_si512(_mm512_loadu_si512(data + at), bits));
      }
      if (at < length) {
        const __mmask64 rest = ~__mmask64{0} >> (64 - (length - at));
        _mm512_storeu_si512(packed + at,
                            _mm512_xor_si512(_mm512_maskz_loadu_epi8(rest, data + at), bits));
      }
      packed += length;
    }
    return packed;
  }
  static uint8_t* pack(const I8Run* runs, size_t count, int32_t, uint8_t* packed) {
    return copy(runs, count, -128, packed);
  }

  static Int packed_zero_point(int32_t zero_point) {
    return _mm512_set1_epi8(static_cast<char>(zero_point + 128));
  }
  static void interleave(const int8_t* const* pixels, int32_t, Int* column) {
    const Int bias = _mm512_set1_epi8(-128);
    const Int a = _mm512_xor_si512(_mm512_loadu_si512(pixels[0]), bias);
    const Int b = _mm512_xor_si512(_mm512_loadu_si512(pixels[1]), bias);
    const Int c = _mm512_xor_si512(_mm512_loadu_si512(pixels[2]), bias);
    const Int d = _mm512_xor_si512(_mm512_loadu_si512(pixels[3]), bias);
    const Int ab_low = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b);
    const Int cd_low = _mm512_unpacklo_epi8(c, d), cd_high = _mm512_unpackhi_epi8(c, d);
    column[0] = _mm512_unpacklo_epi16(ab_low, cd_low);
    column[1] = _mm512_unpackhi_epi16(ab_low, cd_low);
    column[2] = _mm512_unpacklo_epi16(ab_high, cd_high);
    column[3] = _mm512_unpackhi_epi16(ab_high, cd_high);
  }

  static Float load(const float* p) { return _mm512_loadu_ps(p); }
  static Float fill(float x) { return _mm512_set1_ps(x); }
  static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
  static Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static Float to_float(Int x) { return _mm512_cvtepi32_ps(x); }
  static Int round(Float x) { return _mm512_cvtps_epi32(x); }
  static Float clamp(Float x, Float lo, Float hi) {
    return _mm512_min_ps(_mm512_max_ps(x, lo), hi);
  }
  static Float prelu(Float x, Float slope) {
    return _mm512_mask_mul_ps(x, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), x, slope);
  }
  static Float prelu_max(Float x, Float slope) { return _mm512_max_ps(x, _mm512_mul_ps(x, slope)); }

  // Of 64 channels, reading past the last; q - zero_point.
  static void load_block(const int8_t* p, int32_t zero_point, Int* q) {
    const Int zero = _mm512_set1_epi32(zero_point), bytes = _mm512_loadu_si512(p);
    const Int low = _mm512_unpacklo_epi8(bytes, bytes), high = _mm512_unpackhi_epi8(bytes, bytes);
    q[0] = _mm512_unpacklo_epi16(low, low), q[1] = _mm512_unpackhi_epi16(low, low);
    q[2] = _mm512_unpacklo_epi16(high, high), q[3] = _mm512_unpackhi_epi16(high, high);
    for (size_t v = 0; v < 4; ++v) q[v] = _mm512_sub_epi32(_mm512_srai_epi32(q[v], 24), zero);
  }
  static void store_block(int8_t* p, const Int* q, int32_t zero_point, size_t count) {
    // Zen 4 adds with saturation only where it multiplies.
    const Int zero = _mm512_set1_epi32(zero_point);
    const auto sum = [&](size_t v) { return _mm512_add_epi32(q[v], zero); };
    const Int low = _mm512_packs_epi32(sum(0), sum(1)), high = _mm512_packs_epi32(sum(2), sum(3));
    const Int bytes = _mm512_packs_epi16(low, high);
    if (count == 64) {
      _mm512_storeu_si512(p, bytes);
    } else {
      _mm512_mask_storeu_epi8(p, (__mmask64{1} << count) - 1, bytes);
    }
  }

  // From the order of the lanes to that of the channels: a transposition of 128-bit lanes.
  static void channel_order(Float* y) {
    const Float a = _mm512_shuffle_f32x4(y[0], y[1], 0x44);  // y0.0 y0.1 y1.0 y1.1
    const Float b = _mm512_shuffle_f32x4(y[0], y[1], 0xee);  // y0.2 y0.3 y1.2 y1.3
    const Float c = _mm512_shuffle_f32x4(y[2], y[3], 0x44);
    const Float d = _mm512_shuffle_f32x4(y[2], y[3], 0xee);
    y[0] = _mm512_shuffle_f32x4(a, c, 0x88), y[1] = _mm512_shuffle_f32x4(a, c, 0xdd);
    y[2] = _mm512_shuffle_f32x4(b, d, 0x88), y[3] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
  static __mmask16 first(size_t count) {
    return static_cast<__mmask16>(count < kLanes ? (1u << count) - 1 : 0xffffu);
  }
  static Float load_first(const float* p, size_t count) {
    return _mm512_maskz_loadu_ps(first(count), p);
  }
  static void store_first(float* p, Float x, size_t count) {
    _mm512_mask_storeu_ps(p, first(count), x);
  }
};

// The same on half as wide vectors, for layers that would leave half of a block empty.
struct NarrowVnni : YmmVnni {
  static constexpr size_t kTileVectors = 4, kTilePixels = 6;

  static Int dot(Int acc, Int a, Int w) { return _mm256_dpbusd_epi32(acc, a, w); }
  static uint8_t* pack(const I8Run* runs, size_t count, int32_t zero_point, uint8_t* packed) {
    return Vnni::pack(runs, count, zero_point, packed);
  }
};

}  // namespace
}  // namespace pyedge
