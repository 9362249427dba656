// Which CPUs are the fast ones, on processors that have several kinds, and which of them a session
// is to use.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace pyedge {

struct CpuDescription {
  int cpu;
  int64_t capacity = 0;  // as Linux rates it, the fastest 1024; 0 where it does not
  int64_t max_khz = 0;   // 0 where unknown
};

// The CPUs that are online, as the folder says (Linux: /sys/devices/system/cpu).
std::vector<CpuDescription> read_topology(const std::string& folder);

enum class Affinity { kAll, kBig, kLittle };
Status parse_affinity(const std::string& name, Affinity* affinity);

struct CpuChoice {
  std::vector<int> cpus;  // ascending
  bool unequal = false;   // fast and slow ones among them
};

// Of the CPUs that are online and allowed (any, where `allowed` is empty). They fall into two kinds
// where the widest gap between their speeds is one of more than 15 %: the big ones above it, the
// little ones below. Where they do not, big and little mean all. The speed is the capacity, or the
// highest clock where some CPU has no capacity.
CpuChoice choose_cpus(const std::vector<CpuDescription>& online, const std::vector<int>& allowed,
                      Affinity affinity);

}  // namespace pyedge
