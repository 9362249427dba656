// The loops of vector.h, vectorized by the compiler for 512-bit AVX-512.
#include "kernels/unary/vector.h"

namespace pyedge {

PYEDGE_UNARY_KERNELS(avx512vnni)

}  // namespace pyedge
