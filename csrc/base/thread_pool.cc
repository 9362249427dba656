#include "base/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#include "base/affinity.h"

namespace pyedge {
namespace {

// How many forks lie between this process and the first pool: a pool of an earlier generation
// has lost its workers.
std::atomic<int> fork_generation{0};

int default_limit() {
  const size_t allowed = allowed_cpus().size();
  const unsigned all =
      allowed > 0 ? static_cast<unsigned>(allowed) : std::thread::hardware_concurrency();
  return static_cast<int>(std::max(all, 1u));
}

}  // namespace

int ThreadBudget::take(int wanted) {
  int busy = busy_;
  int taken;
  do {
    taken = std::min(wanted, limit_ - busy);
    if (taken <= 0) return 0;
  } while (!busy_.compare_exchange_weak(busy, busy + taken));
  return taken;
}

ThreadBudget& thread_budget() {
  static ThreadBudget budget(default_limit());
  return budget;
}

struct ThreadPool::State {
  struct Worker {
    std::mutex mutex;
    std::condition_variable wake;
    bool work = false, stop = false;
    std::thread thread;
  };

  explicit State(const PoolOptions& options)
      : generation(fork_generation), cpus(options.cpus), unequal(options.unequal) {
    try {
      for (int i = 1; i < options.threads; ++i) {
        workers.push_back(std::make_unique<Worker>());
        workers.back()->thread =
            std::thread([this, i, worker = workers.back().get()] { serve(i, worker); });
      }
    } catch (const std::exception&) {
      // No more threads to be had: the pool works with those it got.
      if (!workers.empty() && !workers.back()->thread.joinable()) workers.pop_back();
    }
  }

  ~State() {
    for (const auto& worker : workers) {
      {
        const std::lock_guard<std::mutex> lock(worker->mutex);
        worker->stop = true;
      }
      worker->wake.notify_one();
    }
    for (const auto& worker : workers) worker->thread.join();
  }

  void run_share(int thread) {
    if (unequal) {
      for (size_t begin = next.fetch_add(chunk); begin < tasks; begin = next.fetch_add(chunk)) {
        body(context, thread, begin, std::min(begin + chunk, tasks));
      }
      return;
    }
    const size_t i = static_cast<size_t>(thread);
    const size_t begin = tasks * i / shares, end = tasks * (i + 1) / shares;
    if (begin < end) body(context, thread, begin, end);
  }

  void run(size_t helpers, size_t task_count, Body function, void* argument) {
    constexpr size_t kChunks = 8;  // of a thread: so fine is the work divided between unequal ones
    tasks = task_count, body = function, context = argument;
    shares = helpers + 1;
    chunk = std::max<size_t>(task_count / (shares * kChunks), 1);
    next = 0;
    active = helpers;
    for (size_t i = 0; i < helpers; ++i) {
      {
        const std::lock_guard<std::mutex> lock(workers[i]->mutex);
        workers[i]->work = true;
      }
      workers[i]->wake.notify_one();
    }
    run_share(0);
    std::unique_lock<std::mutex> lock(done_mutex);
    done.wait(lock, [this] { return active == 0; });
  }

  void serve(int thread, Worker* self) {
    set_thread_cpus(cpus);
    std::unique_lock<std::mutex> lock(self->mutex);
    while (true) {
      self->wake.wait(lock, [&] { return self->work || self->stop; });
      if (self->stop) return;
      self->work = false;
      lock.unlock();
      run_share(thread);
      if (--active == 0) {
        const std::lock_guard<std::mutex> done_lock(done_mutex);
        done.notify_one();
      }
      lock.lock();
    }
  }

  const int generation;
  const std::vector<int> cpus;
  const bool unequal;
  std::vector<std::unique_ptr<Worker>> workers;
  // The present call of run.
  std::mutex done_mutex;
  std::condition_variable done;
  std::atomic<size_t> active{0};  // workers that have not finished it
  std::atomic<size_t> next{0};    // the first task that nobody has taken
  size_t tasks = 0, shares = 0, chunk = 0;
  Body body = nullptr;
  void* context = nullptr;
};

ThreadPool::ThreadPool(const PoolOptions& options) : options_(options) {
  static std::once_flag once;
  std::call_once(once, [] {
    thread_budget();
    pthread_atfork(nullptr, nullptr, [] {
      ++fork_generation;
      thread_budget().busy_ = 0;
    });
  });
  if (options_.budget == nullptr) options_.budget = &thread_budget();
  state_ = new State(options_);
}

ThreadPool::~ThreadPool() {
  // After a fork the state is left behind: its workers can be neither joined nor waited for.
  if (state_->generation == fork_generation) delete state_;
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::run(size_t tasks, Body body, void* context) {
  if (state_->generation != fork_generation) state_ = new State(options_);
  const size_t wanted = std::min(state_->workers.size(), std::max<size_t>(tasks, 1) - 1);
  const int helpers = wanted > 0 ? options_.budget->take(static_cast<int>(wanted)) : 0;
  if (helpers == 0) {
    body(context, 0, 0, tasks);
  } else {
    state_->run(static_cast<size_t>(helpers), tasks, body, context);
    options_.budget->give(helpers);
  }
}

}  // namespace pyedge
