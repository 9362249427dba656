// The loops of vector.h, vectorized by the compiler for NEON.
#include "kernels/pool/vector.h"

namespace pyedge {

PYEDGE_POOL_KERNELS(neon)

}  // namespace pyedge
