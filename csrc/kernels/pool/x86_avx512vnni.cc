// The loops of vector.h, vectorized by the compiler for 512-bit AVX-512.
#include "kernels/pool/vector.h"

namespace pyedge {

PYEDGE_POOL_KERNELS(avx512vnni)

}  // namespace pyedge
