// The loops of vector.h, vectorized by the compiler for 256-bit AVX2.
#include "kernels/unary/vector.h"

namespace pyedge {

PYEDGE_UNARY_KERNELS(avx2)

}  // namespace pyedge
