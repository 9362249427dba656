// Scalar concatenation.
#include "kernels/concat/loops.h"

namespace pyedge {

extern const Kernel concat_any_reference = plain_kernel(
    "concat_any_reference", Op::k_concat, Isa::reference, accepts_concat, concat_tasks, run_concat);

}  // namespace pyedge
