// The loops of vector.h, vectorized by the compiler for NEON.
#include "kernels/conv_transpose/vector.h"

namespace pyedge {

PYEDGE_CONV_TRANSPOSE_KERNELS(neon)

}  // namespace pyedge
