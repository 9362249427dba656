// The loops of the reference, vectorized by the compiler for 256-bit AVX2.
#include "kernels/resize/loops.h"

namespace pyedge {

extern const Kernel resize_any_avx2 = plain_kernel("resize_any_avx2", Op::k_resize, Isa::avx2,
                                                   accepts_resize, resize_tasks, run_resize);

}  // namespace pyedge
