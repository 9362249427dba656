// The loops of vector.h, vectorized by the compiler for 256-bit AVX2.
#include "kernels/conv_transpose/vector.h"

namespace pyedge {

PYEDGE_CONV_TRANSPOSE_KERNELS(avx2)

}  // namespace pyedge
