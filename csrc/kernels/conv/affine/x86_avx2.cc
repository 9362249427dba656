// The loops of affine.h, vectorized by the compiler for AVX2.
#include "kernels/conv/affine/affine.h"

namespace pyedge {

extern const Kernel conv_i8_affine_avx2 =
    affine_kernel("conv_i8_affine_avx2", Isa::avx2, affine_cost);

}  // namespace pyedge
