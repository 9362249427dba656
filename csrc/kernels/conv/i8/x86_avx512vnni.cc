// INT8 convolution on vpdpbusd: four products of an unsigned and a signed byte are added to each
// int32 lane, without saturation. Activations go in as q + 128, and the accumulator begins at
// -(128 + zero_point) * sum(w).
//
// Exact: a step adds at most 4 * 255 * 127 in magnitude, the true sum fits in int32 (validation
// bounds the taps), and in between sums are taken modulo 2^32.
#include "kernels/conv/i8/dense_panel.h"
#include "kernels/conv/i8/depthwise_row.h"
#include "kernels/conv/i8/x86_zmm_vnni.h"

namespace pyedge {

extern const Kernel conv_i8_avx512vnni =
    i8_dense_kernel<Vnni, NarrowVnni>("conv_i8_avx512vnni", Isa::avx512vnni);
extern const Kernel conv_i8_depthwise_avx512vnni =
    i8_depthwise_kernel<Vnni, NarrowVnni>("conv_i8_depthwise_avx512vnni", Isa::avx512vnni);

}  // namespace pyedge
