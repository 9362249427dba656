// The thread pool: each task exactly once, and no more threads at work than the budget allows.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/affinity.h"
#include "base/thread_pool.h"
#include "check.h"

namespace pyedge {
namespace {

struct Counted {
  std::vector<std::atomic<int>> calls;
  int threads;
};

void count_tasks(void* context, int thread, size_t begin, size_t end) {
  Counted& counted = *static_cast<Counted*>(context);
  CHECK(thread >= 0 && thread < counted.threads);
  for (size_t i = begin; i < end; ++i) counted.calls[i].fetch_add(1);
}

void test_thread_pool() {
  for (int threads = 1; threads <= 4; ++threads) {
    for (const int limit : {1, 2, 8}) {
      for (const bool unequal : {false, true}) {
        ThreadBudget budget(limit);
        const ScopedCaller caller(&budget);
        ThreadPool pool({threads, {}, unequal, &budget});
        CHECK(pool.threads() == threads);
        for (const size_t tasks : {0, 1, 2, 3, 7, 64, 1000}) {
          for (int repeat = 0; repeat < 20; ++repeat) {
            Counted counted{std::vector<std::atomic<int>>(tasks), std::min(threads, limit)};
            pool.run(tasks, count_tasks, &counted);
            for (const std::atomic<int>& calls : counted.calls) CHECK(calls.load() == 1);
          }
        }
      }
    }
  }
}

void test_thread_budget() {
  ThreadBudget budget(4);
  budget.enter();
  CHECK(budget.take(2) == 2);
  budget.enter();
  CHECK(budget.take(3) == 0);  // two callers and two workers are four
  budget.give(2);
  CHECK(budget.take(3) == 2);
  budget.enter();  // a caller is never refused, but leaves less for others
  budget.give(2);
  CHECK(budget.take(3) == 1);
  budget.set_limit(2);
  CHECK(budget.take(1) == 0);
  budget.give(1);
  for (int i = 0; i < 3; ++i) budget.leave();
  CHECK(budget.take(8) == 2);
}

// Several callers with pools of four never have more at work than the budget says.
struct Crowd {
  std::atomic<int> working{0}, most{0};
};

void work_in_crowd(void* context, int, size_t, size_t) {
  Crowd& crowd = *static_cast<Crowd*>(context);
  const int now = ++crowd.working;
  int most = crowd.most;
  while (now > most && !crowd.most.compare_exchange_weak(most, now)) {
  }
  std::this_thread::yield();
  --crowd.working;
}

void test_pools_share_the_budget() {
  constexpr int kLimit = 4, kCallers = 3;
  ThreadBudget budget(kLimit);
  Crowd crowd;
  for (int i = 0; i < kCallers; ++i) budget.enter();
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&] {
      ThreadPool pool({4, {}, false, &budget});
      for (int repeat = 0; repeat < 100; ++repeat) pool.run(4, work_in_crowd, &crowd);
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(crowd.most <= kLimit);
  CHECK(budget.take(kLimit) == kLimit - kCallers);
}

void test_affinity() {
  const std::vector<int> before = allowed_cpus();
  if (before.empty()) return;
  {
    const ScopedCpus one({before.back()});
    CHECK(allowed_cpus() == std::vector<int>{before.back()});
    const ScopedCpus same({});
    CHECK(allowed_cpus() == std::vector<int>{before.back()});
  }
  CHECK(allowed_cpus() == before);
  const ScopedCpus none({CPU_SETSIZE - 1});  // not there: the thread stays where it is
  if (before.back() != CPU_SETSIZE - 1) CHECK(allowed_cpus() == before);
}

}  // namespace
}  // namespace pyedge

int main() {
  pyedge::test_thread_pool();
  pyedge::test_thread_budget();
  pyedge::test_pools_share_the_budget();
  pyedge::test_affinity();
  return 0;
}
