// The loops of affine.h, vectorized by the compiler for NEON.
#include "kernels/conv/affine/affine.h"

namespace pyedge {

extern const Kernel conv_i8_affine_neon =
    affine_kernel("conv_i8_affine_neon", Isa::neon, affine_cost_alone);

}  // namespace pyedge
