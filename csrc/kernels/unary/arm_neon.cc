// The loops of vector.h, vectorized by the compiler for NEON.
#include "kernels/unary/vector.h"

namespace pyedge {

PYEDGE_UNARY_KERNELS(neon)

}  // namespace pyedge
