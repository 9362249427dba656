// The loops of vector.h, vectorized by the compiler for 256-bit AVX2.
#include "kernels/pool/vector.h"

namespace pyedge {

PYEDGE_POOL_KERNELS(avx2)

}  // namespace pyedge
