// The loops of the reference, vectorized by the compiler for 256-bit AVX2.
#include "kernels/concat/loops.h"

namespace pyedge {

extern const Kernel concat_any_avx2 = plain_kernel("concat_any_avx2", Op::k_concat, Isa::avx2,
                                                   accepts_concat, concat_tasks, run_concat);

}  // namespace pyedge
