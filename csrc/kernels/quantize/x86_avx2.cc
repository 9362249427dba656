// The loops of vector.h, vectorized by the compiler for 256-bit AVX2.
#include "kernels/quantize/vector.h"

namespace pyedge {

PYEDGE_QUANTIZE_KERNELS(avx2)

}  // namespace pyedge
