// The loops of vector.h, vectorized by the compiler for 256-bit AVX2.
#include "kernels/binary/vector.h"

namespace pyedge {

PYEDGE_BINARY_KERNELS(avx2)

}  // namespace pyedge
