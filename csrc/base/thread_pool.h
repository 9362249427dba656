// A pool whose workers sleep on a condition variable while there is nothing to do. A pool of one
// thread has no workers: the caller does the work.
#pragma once

#include <cstddef>

namespace pyedge {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // At most as many as asked for: fewer where the system gives no more.
  int threads() const;

  // Calls body(context, thread, begin, end) on each thread with its share of [0, tasks) and
  // returns when all are done. One caller at a time. Does not allocate, except once in the child
  // of a fork, where the workers are gone and are made anew.
  using Body = void (*)(void* context, int thread, size_t begin, size_t end);
  void run(size_t tasks, Body body, void* context);

 private:
  struct State;
  State* state_;
};

}  // namespace pyedge
