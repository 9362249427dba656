// INT8 convolution on vpdpbusd: four products of an unsigned and a signed byte are added to each
// int32 lane, without saturation. Activations go in as q + 128, and the accumulator begins at
// -(128 + zero_point) * sum(w).
//
// Exact: a step adds at most 4 * 255 * 127 in magnitude, the true sum fits in int32 (validation
// bounds the taps), and in between sums are taken modulo 2^32.
#include "kernels/conv/i8/dense_panel.h"
#include "kernels/conv/i8/depthwise_row.h"
#include "kernels/conv/i8/winograd_tile.h"
#include "kernels/conv/i8/x86_zmm_vnni.h"

namespace pyedge {
namespace {

// Blocks of as many channels as half as wide vectors finish: a pass takes them all.
struct VnniWinograd {
  using Int = __m512i;
  using Short = __m512i;
  using Finish = Ymm;
  static constexpr size_t kInts = 16, kShorts = 32;
  static constexpr size_t kPassVectors = 2, kTiles = 12;  // 24 accumulators of 32 registers
  static constexpr I8WinogradTimes kTimes = {1.0 / 110, 25.0, 1.6, 4.0};

  static Short in_register(Short x) { return Vnni::in_register(x); }
  static Short widen(const int8_t* p) { return _mm512_cvtepi8_epi16(Ymm::load_vector(p)); }
  static Short load16(const int16_t* p) { return _mm512_loadu_si512(p); }
  static void store16(int16_t* p, Short x) { _mm512_storeu_si512(p, x); }
  static Short broadcast_pair(const int16_t* p) {
    return Vnni::broadcast(reinterpret_cast<const uint8_t*>(p));
  }
  static Short fill16(int32_t x) { return _mm512_set1_epi16(static_cast<short>(x)); }
  static Short add16(Short a, Short b) { return _mm512_add_epi16(a, b); }
  static Short sub16(Short a, Short b) { return _mm512_sub_epi16(a, b); }
  static Short mul16(Short a, Short b) { return _mm512_mullo_epi16(a, b); }
  template <int kBits>
  static Short shl16(Short a) {
    return _mm512_slli_epi16(a, kBits);
  }

  static Int load(const int32_t* p) { return _mm512_loadu_si512(p); }
  static void store(int32_t* p, Int x) { _mm512_storeu_si512(p, x); }
  static Int dot16(Int acc, Short a, Short w) { return _mm512_dpwssd_epi32(acc, a, w); }
  static Int zero() { return _mm512_setzero_si512(); }
  static Int fill32(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
  static Int add32(Int a, Int b) { return _mm512_add_epi32(a, b); }
  static Int sub32(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static Int mul32(Int a, Int b) { return _mm512_mullo_epi32(a, b); }
  template <int kBits>
  static Int shl32(Int a) {
    return _mm512_slli_epi32(a, kBits);
  }
  template <int kBits>
  static Int sra32(Int a) {
    return _mm512_srai_epi32(a, kBits);
  }
};

}  // namespace

extern const Kernel conv_i8_avx512vnni =
    i8_dense_kernel<Vnni, NarrowVnni>("conv_i8_avx512vnni", Isa::avx512vnni);
extern const Kernel conv_i8_depthwise_avx512vnni =
    i8_depthwise_kernel<Vnni, NarrowVnni>("conv_i8_depthwise_avx512vnni", Isa::avx512vnni);
extern const Kernel conv_i8_winograd_avx512vnni =
    i8_winograd_kernel<VnniWinograd>("conv_i8_winograd_avx512vnni", Isa::avx512vnni);

}  // namespace pyedge
