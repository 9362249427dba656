// The loops of vector.h, vectorized by the compiler for NEON.
#include "kernels/transpose/vector.h"

namespace pyedge {

PYEDGE_TRANSPOSE_KERNELS(neon)

}  // namespace pyedge
