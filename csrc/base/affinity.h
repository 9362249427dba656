// On which CPUs threads run. Elsewhere than on Linux: on any.
#pragma once

#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace pyedge {

// The CPUs that the calling thread may run on, ascending; empty where the system does not say.
std::vector<int> allowed_cpus();

// Keeps the calling thread on these CPUs; none means that it stays as it is. As it is, too, where
// the system allows none of them.
void set_thread_cpus(const std::vector<int>& cpus);

// The same for as long as it lives.
class ScopedCpus {
 public:
  explicit ScopedCpus(const std::vector<int>& cpus);
  ~ScopedCpus();
  ScopedCpus(const ScopedCpus&) = delete;
  ScopedCpus& operator=(const ScopedCpus&) = delete;

 private:
#if defined(__linux__)
  cpu_set_t before_;
#endif
  bool moved_ = false;
};

}  // namespace pyedge
