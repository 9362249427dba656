// Scalar resizing; a task is a row of the output.
#include "kernels/resize/loops.h"

namespace pyedge {

extern const Kernel resize_any_reference = plain_kernel(
    "resize_any_reference", Op::k_resize, Isa::reference, accepts_resize, resize_tasks, run_resize);

}  // namespace pyedge
