// The loops of vector.h, vectorized by the compiler for 256-bit AVX2.
#include "kernels/reduce/vector.h"

namespace pyedge {

PYEDGE_REDUCE_KERNELS(avx2)

}  // namespace pyedge
