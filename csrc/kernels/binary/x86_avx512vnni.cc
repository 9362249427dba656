// The loops of vector.h, vectorized by the compiler for 512-bit AVX-512.
#include "kernels/binary/vector.h"

namespace pyedge {

PYEDGE_BINARY_KERNELS(avx512vnni)

}  // namespace pyedge
