// INT8 convolution on vpdpbusd in its VEX encoding, for processors with AVX-VNNI and without
// AVX-512. The bound that makes it exact is that of x86_avx512vnni.cc.
#include "kernels/conv/i8/dense_panel.h"
#include "kernels/conv/i8/depthwise_row.h"
#include "kernels/conv/i8/x86_ymm_vnni.h"

namespace pyedge {
namespace {

struct AvxVnni : YmmVnni {
  static constexpr size_t kTileVectors = 2, kTilePixels = 6;  // 12 accumulators of 16 registers

  static Int dot(Int acc, Int a, Int w) { return _mm256_dpbusd_avx_epi32(acc, a, w); }
};

}  // namespace

extern const Kernel conv_i8_avxvnni =
    i8_dense_kernel<AvxVnni, AvxVnni>("conv_i8_avxvnni", Isa::avxvnni);
extern const Kernel conv_i8_depthwise_avxvnni =
    i8_depthwise_kernel<AvxVnni, AvxVnni>("conv_i8_depthwise_avxvnni", Isa::avxvnni);

}  // namespace pyedge
