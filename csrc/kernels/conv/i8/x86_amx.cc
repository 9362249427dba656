// INT8 convolution on tdpbssd: 16 x 16 sums of 64 products of signed bytes each, added to int32
// without saturation. Activations go in as they are, and the accumulator begins at
// -zero_point * sum(w).
//
// Exact: the true sum fits in int32 (validation bounds the taps), and in between sums are taken
// modulo 2^32.
#include "kernels/conv/i8/amx_panel.h"
#include "kernels/simd/tiles_amx.h"

namespace pyedge {

extern const Kernel conv_i8_amx = i8_amx_kernel<AmxTiles>("conv_i8_amx", Isa::amx);
extern const Kernel conv_i8_strip_amx =
    i8_strip_amx_kernel<AmxTiles>("conv_i8_strip_amx", Isa::amx);

}  // namespace pyedge
