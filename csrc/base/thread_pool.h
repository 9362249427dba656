// A pool whose workers sleep on a condition variable while there is nothing to do. A pool of one
// thread has no workers: the caller does the work.
#pragma once

#include <cstddef>
#include <vector>

#include "base/thread_budget.h"

namespace pyedge {

struct PoolOptions {
  int threads = 1;
  std::vector<int>
      cpus;  // that the workers stay on; empty: those of the thread that makes the pool
  // The CPUs differ in speed: who is done takes more, instead of all getting the same share.
  bool unequal = false;
  ThreadBudget* budget = nullptr;  // null: that of the process
};

class ThreadPool {
 public:
  explicit ThreadPool(const PoolOptions& options);
  explicit ThreadPool(int threads) : ThreadPool(PoolOptions{threads, {}, false, nullptr}) {}
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // At most as many as asked for: fewer where the system gives no more.
  int threads() const;

  // Calls body(context, thread, begin, end) on the caller and on as many workers as the budget has
  // room for, which share [0, tasks) between them, and returns when all are done. One caller at a
  // time. Does not allocate, except once in the child of a fork, where the workers are gone and are
  // made anew.
  using Body = void (*)(void* context, int thread, size_t begin, size_t end);
  void run(size_t tasks, Body body, void* context);

 private:
  struct State;
  PoolOptions options_;
  State* state_;
};

}  // namespace pyedge
