// The loops of affine.h, vectorized by the compiler for AVX-512.
#include "kernels/conv/affine/affine.h"

namespace pyedge {

extern const Kernel conv_i8_affine_avx512vnni =
    affine_kernel("conv_i8_affine_avx512vnni", Isa::avx512vnni, affine_cost);

}  // namespace pyedge
