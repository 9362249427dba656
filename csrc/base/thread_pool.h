// A pool whose workers sleep on a condition variable while there is nothing to do. A pool of one
// thread has no workers: the caller does the work.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace pyedge {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(context, thread, begin, end) on each thread with its share of [0, tasks) and
  // returns when all are done. One caller at a time. Does not allocate.
  using Body = void (*)(void* context, int thread, size_t begin, size_t end);
  void run(size_t tasks, Body body, void* context);

 private:
  void work(int thread);
  void run_share(int thread) const;

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable start_, done_;
  uint64_t generation_ = 0;  // counts calls of run, so that a worker knows a new one
  int active_ = 0;           // workers that have not finished the present call
  bool stop_ = false;
  size_t tasks_ = 0;
  Body body_ = nullptr;
  void* context_ = nullptr;
};

}  // namespace pyedge
