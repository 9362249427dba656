#include "base/affinity.h"

namespace pyedge {

#if defined(__linux__)

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

void set_thread_cpus(const std::vector<int>& cpus) {
  if (cpus.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

ScopedCpus::ScopedCpus(const std::vector<int>& cpus) {
  if (cpus.empty() || sched_getaffinity(0, sizeof before_, &before_) != 0) return;
  moved_ = true;
  set_thread_cpus(cpus);
}

ScopedCpus::~ScopedCpus() {
  if (moved_) sched_setaffinity(0, sizeof before_, &before_);
}

#else

std::vector<int> allowed_cpus() { return {}; }
void set_thread_cpus(const std::vector<int>&) {}
ScopedCpus::ScopedCpus(const std::vector<int>&) {}
ScopedCpus::~ScopedCpus() = default;

#endif

}  // namespace pyedge
