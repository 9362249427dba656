#include "base/thread_pool.h"

namespace pyedge {

ThreadPool::ThreadPool(int threads) {
  workers_.reserve(static_cast<size_t>(threads > 1 ? threads - 1 : 0));
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (const std::exception&) {
    // No more threads to be had: the pool works with those it got.
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_share(int thread) const {
  const auto n = static_cast<size_t>(threads()), i = static_cast<size_t>(thread);
  const size_t begin = tasks_ * i / n, end = tasks_ * (i + 1) / n;
  if (begin < end) body_(context_, thread, begin, end);
}

void ThreadPool::run(size_t tasks, Body body, void* context) {
  if (workers_.empty() || tasks <= 1) {
    body(context, 0, 0, tasks);
    return;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    tasks_ = tasks, body_ = body, context_ = context;
    active_ = static_cast<int>(workers_.size());
    ++generation_;
  }
  start_.notify_all();
  run_share(0);
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [this] { return active_ == 0; });
}

void ThreadPool::work(int thread) {
  uint64_t seen = 0;
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    start_.wait(lock, [&] { return stop_ || generation_ != seen; });
    if (stop_) return;
    seen = generation_;
    lock.unlock();
    run_share(thread);
    lock.lock();
    if (--active_ == 0) done_.notify_one();
  }
}

}  // namespace pyedge
