// Which CPUs the affinity policies choose, on the processors that pyedge is for.
#include "cpu/topology.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "check.h"

namespace pyedge {
namespace {

using Cpus = std::vector<int>;

struct Kind {
  int count;
  int64_t capacity, max_khz;
};

// CPUs numbered in the order of the kinds.
std::vector<CpuDescription> processor(const std::vector<Kind>& kinds) {
  std::vector<CpuDescription> cpus;
  for (const Kind& kind : kinds) {
    for (int i = 0; i < kind.count; ++i) {
      cpus.push_back({static_cast<int>(cpus.size()), kind.capacity, kind.max_khz});
    }
  }
  return cpus;
}

void check(const std::vector<CpuDescription>& online, const Cpus& allowed, const Cpus& all,
           const Cpus& big, const Cpus& little) {
  CHECK(choose_cpus(online, allowed, Affinity::kAll).cpus == all);
  CHECK(choose_cpus(online, allowed, Affinity::kBig).cpus == big);
  CHECK(choose_cpus(online, allowed, Affinity::kLittle).cpus == little);
  CHECK(choose_cpus(online, allowed, Affinity::kAll).unequal == (big != little));
  CHECK(!choose_cpus(online, allowed, Affinity::kBig).unequal);
}

void test_processors() {
  // Rockchip RK3399: four Cortex-A53, two Cortex-A72; with and without rated capacities.
  for (const int64_t rated : {0, 1}) {
    check(processor({{4, 485 * rated, 1416000}, {2, 1024 * rated, 1800000}}), {},
          {0, 1, 2, 3, 4, 5}, {4, 5}, {0, 1, 2, 3});
  }
  // Rockchip RK3588: the two pairs of Cortex-A76 differ a little in their clocks.
  check(processor({{4, 530, 1800000}, {2, 1008, 2256000}, {2, 1024, 2304000}}), {},
        {0, 1, 2, 3, 4, 5, 6, 7}, {4, 5, 6, 7}, {0, 1, 2, 3});
  // A phone with three kinds: the little ones are those far below the others.
  check(processor({{4, 325, 1800000}, {3, 871, 2420000}, {1, 1024, 2840000}}), {},
        {0, 1, 2, 3, 4, 5, 6, 7}, {4, 5, 6, 7}, {0, 1, 2, 3});
  // Raspberry Pi 4, Jetson Orin: one kind.
  check(processor({{4, 1024, 1800000}}), {}, {0, 1, 2, 3}, {0, 1, 2, 3}, {0, 1, 2, 3});
  check(processor({{6, 1024, 1510400}}), {}, {0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5},
        {0, 1, 2, 3, 4, 5});
  // An x86 hybrid before Linux rated it: the favoured cores are no kind of their own.
  check(processor({{2, 0, 5800000}, {2, 0, 5500000}, {4, 0, 4300000}}), {},
        {0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 3}, {4, 5, 6, 7});
  // An x86 server, a virtual machine that says nothing.
  check(processor({{1, 0, 3700000}, {1, 0, 3600000}}), {}, {0, 1}, {0, 1}, {0, 1});
  check(processor({{2, 0, 0}}), {}, {0, 1}, {0, 1}, {0, 1});
}

void test_masks_and_offline_cpus() {
  const std::vector<CpuDescription> rk3399 = processor({{4, 485, 0}, {2, 1024, 0}});
  check(rk3399, {1, 2, 5}, {1, 2, 5}, {5}, {1, 2});
  // A container on one kind alone gets all of it.
  check(rk3399, {0, 1}, {0, 1}, {0, 1}, {0, 1});
  check(rk3399, {4, 5}, {4, 5}, {4, 5}, {4, 5});
  // The mask may name CPUs that are not there.
  check(rk3399, {3, 4, 64}, {3, 4}, {4}, {3});
  // The big ones are switched off.
  const std::vector<CpuDescription> hot(rk3399.begin(), rk3399.begin() + 4);
  check(hot, {}, {0, 1, 2, 3}, {0, 1, 2, 3}, {0, 1, 2, 3});
  // One unrated CPU leaves the clocks, and without them nothing to tell kinds by.
  std::vector<CpuDescription> unrated = rk3399;
  unrated[5].capacity = 0;
  check(unrated, {}, {0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5}, {0, 1, 2, 3, 4, 5});
  check({}, {0, 1}, {}, {}, {});
}

void write(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

void test_reading() {
  char name[] = "/tmp/pyedge-topology-XXXXXX";
  CHECK(mkdtemp(name) != nullptr);
  const std::filesystem::path folder = name;
  CHECK(read_topology(name).empty());
  write(folder / "online", "0-1,4\n");
  write(folder / "cpu0/cpu_capacity", "485\n");
  write(folder / "cpu1/cpu_capacity", "lots\n");
  write(folder / "cpu4/cpufreq/cpuinfo_max_freq", "1800000\n");
  const std::vector<CpuDescription> cpus = read_topology(name);
  CHECK(cpus.size() == 3);
  CHECK(cpus[0].cpu == 0 && cpus[0].capacity == 485 && cpus[0].max_khz == 0);
  CHECK(cpus[1].cpu == 1 && cpus[1].capacity == 0);
  CHECK(cpus[2].cpu == 4 && cpus[2].max_khz == 1800000);
  for (const char* text : {"", "x", "0-", "3-1", "-1", "0-99999999", "0,,1"}) {
    write(folder / "online", text);
    CHECK(read_topology(name).size() <= 1);
  }
  std::filesystem::remove_all(folder);
}

void test_names() {
  Affinity affinity{};
  CHECK(parse_affinity("all", &affinity).ok() && affinity == Affinity::kAll);
  CHECK(parse_affinity("big", &affinity).ok() && affinity == Affinity::kBig);
  CHECK(parse_affinity("little", &affinity).ok() && affinity == Affinity::kLittle);
  CHECK(parse_affinity("medium", &affinity).code() == StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pyedge

int main() {
  pyedge::test_processors();
  pyedge::test_masks_and_offline_cpus();
  pyedge::test_reading();
  pyedge::test_names();
  return 0;
}
