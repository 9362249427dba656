// The loops of vector.h, vectorized by the compiler for NEON.
#include "kernels/reduce/vector.h"

namespace pyedge {

PYEDGE_REDUCE_KERNELS(neon)

}  // namespace pyedge
