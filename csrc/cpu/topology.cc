#include "cpu/topology.h"

#include <algorithm>
#include <fstream>

namespace pyedge {
namespace {

int64_t read_number(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value && value > 0 ? value : 0;
}

// "0-3,6": CPUs 0 to 3 and 6. What does not look like this ends the list.
std::vector<int> read_list(const std::string& path) {
  std::ifstream file(path);
  std::vector<int> cpus;
  constexpr int kMaxCpus = 1 << 16;
  int first = 0;
  while (file >> first) {
    int last = first;
    if (file.peek() == '-') file.ignore(1) >> last;
    if (first < 0 || last >= kMaxCpus) break;
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
    if (file.get() != ',') break;
  }
  return cpus;
}

// The slowest of the big CPUs; 0 where all are alike.
int64_t least_big(std::vector<int64_t> speeds) {
  constexpr double kGap = 1.15;
  std::sort(speeds.begin(), speeds.end());
  int64_t least = 0;
  double widest = kGap;
  for (size_t i = 1; i < speeds.size(); ++i) {
    const double gap = static_cast<double>(speeds[i]) / static_cast<double>(speeds[i - 1]);
    if (gap > widest) widest = gap, least = speeds[i];
  }
  return least;
}

}  // namespace

std::vector<CpuDescription> read_topology(const std::string& folder) {
  std::vector<CpuDescription> cpus;
  for (const int cpu : read_list(folder + "/online")) {
    const std::string own = folder + "/cpu" + std::to_string(cpu);
    cpus.push_back(
        {cpu, read_number(own + "/cpu_capacity"), read_number(own + "/cpufreq/cpuinfo_max_freq")});
  }
  return cpus;
}

Status parse_affinity(const std::string& name, Affinity* affinity) {
  if (name == "all") {
    *affinity = Affinity::kAll;
  } else if (name == "big") {
    *affinity = Affinity::kBig;
  } else if (name == "little") {
    *affinity = Affinity::kLittle;
  } else {
    return invalid_argument("affinity: " + name + "; expected all, big or little");
  }
  return {};
}

CpuChoice choose_cpus(const std::vector<CpuDescription>& online, const std::vector<int>& allowed,
                      Affinity affinity) {
  std::vector<CpuDescription> usable;
  for (const CpuDescription& cpu : online) {
    if (allowed.empty() || std::find(allowed.begin(), allowed.end(), cpu.cpu) != allowed.end()) {
      usable.push_back(cpu);
    }
  }
  const auto rated = [&](int64_t CpuDescription::*speed) {
    return std::all_of(usable.begin(), usable.end(),
                       [&](const CpuDescription& cpu) { return cpu.*speed > 0; });
  };
  const auto speed =
      rated(&CpuDescription::capacity) ? &CpuDescription::capacity : &CpuDescription::max_khz;
  std::vector<int64_t> speeds;
  for (const CpuDescription& cpu : usable) speeds.push_back(cpu.*speed);
  const int64_t least = rated(speed) ? least_big(speeds) : 0;
  CpuChoice choice;
  choice.unequal = least > 0 && affinity == Affinity::kAll;
  for (const CpuDescription& cpu : usable) {
    const bool big = cpu.*speed >= least;
    if (least == 0 || affinity == Affinity::kAll || big == (affinity == Affinity::kBig)) {
      choice.cpus.push_back(cpu.cpu);
    }
  }
  std::sort(choice.cpus.begin(), choice.cpus.end());
  return choice;
}

}  // namespace pyedge
