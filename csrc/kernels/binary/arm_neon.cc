// The loops of vector.h, vectorized by the compiler for NEON.
#include "kernels/binary/vector.h"

namespace pyedge {

PYEDGE_BINARY_KERNELS(neon)

}  // namespace pyedge
