#include "base/thread_pool.h"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace pyedge {
namespace {

// How many forks lie between this process and the first pool: a pool of an earlier generation
// has lost its workers.
std::atomic<int> fork_generation{0};

void watch_forks() {
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { ++fork_generation; }); });
}

}  // namespace

struct ThreadPool::State {
  explicit State(int threads) : generation(fork_generation) {
    workers.reserve(static_cast<size_t>(threads > 1 ? threads - 1 : 0));
    try {
      for (int i = 1; i < threads; ++i) workers.emplace_back([this, i] { work(i); });
    } catch (const std::exception&) {
      // No more threads to be had: the pool works with those it got.
    }
  }

  ~State() {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      stop = true;
    }
    start.notify_all();
    for (std::thread& worker : workers) worker.join();
  }

  size_t threads() const { return workers.size() + 1; }

  void run_share(int thread) const {
    const size_t n = threads(), i = static_cast<size_t>(thread);
    const size_t begin = tasks * i / n, end = tasks * (i + 1) / n;
    if (begin < end) body(context, thread, begin, end);
  }

  void run(size_t task_count, Body function, void* argument) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      tasks = task_count, body = function, context = argument;
      active = workers.size();
      ++calls;
    }
    start.notify_all();
    run_share(0);
    std::unique_lock<std::mutex> lock(mutex);
    done.wait(lock, [this] { return active == 0; });
  }

  void work(int thread) {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex);
    while (true) {
      start.wait(lock, [&] { return stop || calls != seen; });
      if (stop) return;
      seen = calls;
      lock.unlock();
      run_share(thread);
      lock.lock();
      if (--active == 0) done.notify_one();
    }
  }

  const int generation;
  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable start, done;
  uint64_t calls = 0;  // of run, so that a worker knows a new one
  size_t active = 0;   // workers that have not finished the present call
  bool stop = false;
  size_t tasks = 0;
  Body body = nullptr;
  void* context = nullptr;
};

ThreadPool::ThreadPool(int threads) {
  watch_forks();
  state_ = new State(threads);
}

ThreadPool::~ThreadPool() {
  // After a fork the state is left behind: its workers can be neither joined nor waited for.
  if (state_->generation == fork_generation) delete state_;
}

int ThreadPool::threads() const { return static_cast<int>(state_->threads()); }

void ThreadPool::run(size_t tasks, Body body, void* context) {
  if (state_->generation != fork_generation) state_ = new State(threads());
  if (state_->workers.empty() || tasks <= 1) {
    body(context, 0, 0, tasks);
  } else {
    state_->run(tasks, body, context);
  }
}

}  // namespace pyedge
