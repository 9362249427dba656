// One kernel over the threads of a pool, as the executor and the tests of kernels run it.
#pragma once

#include "base/thread_pool.h"
#include "cpu/fp_state.h"
#include "kernels/kernel.h"

namespace pyedge {

struct Launch {
  const Kernel* kernel;
  const OpArgs* args;
  const void* prepared;
  uint8_t* scratch;       // threads * scratch_stride bytes
  size_t scratch_stride;  // a multiple of kAlignment
};

// On the calling thread.
inline void launch_alone(const Launch& call, size_t tasks) {
  const ScopedFpState fp_state;
  call.kernel->run(*call.args, call.prepared, call.scratch, 0, tasks);
}

inline void launch(ThreadPool* pool, Launch call, size_t tasks) {
  pool->run(
      tasks,
      [](void* context, int thread, size_t begin, size_t end) {
        const ScopedFpState fp_state;
        const Launch& l = *static_cast<const Launch*>(context);
        l.kernel->run(*l.args, l.prepared,
                      l.scratch + static_cast<size_t>(thread) * l.scratch_stride, begin, end);
      },
      &call);
}

}  // namespace pyedge
