// How many threads of a process work at once, over all its sessions: as many as it has CPUs, or
// fewer if it says so. A caller of a session always works; its workers join while there is room.
#pragma once

#include <atomic>

namespace pyedge {

class ThreadBudget {
 public:
  explicit ThreadBudget(int limit) : limit_(limit) {}

  void set_limit(int limit) { limit_ = limit; }
  int limit() const { return limit_; }

  // A caller begins and ends to work.
  void enter() { ++busy_; }
  void leave() { --busy_; }
  // How many of the wanted workers may work now; to be given back when they have.
  int take(int wanted);
  void give(int taken) { busy_ -= taken; }

 private:
  friend class ThreadPool;  // the child of a fork has nobody at work

  std::atomic<int> limit_, busy_{0};
};

// Counts the calling thread as long as it lives.
class ScopedCaller {
 public:
  explicit ScopedCaller(ThreadBudget* budget) : budget_(budget) { budget_->enter(); }
  ~ScopedCaller() { budget_->leave(); }
  ScopedCaller(const ScopedCaller&) = delete;
  ScopedCaller& operator=(const ScopedCaller&) = delete;

 private:
  ThreadBudget* budget_;
};

// The budget of this process; its first limit is how many CPUs the process may run on.
ThreadBudget& thread_budget();

}  // namespace pyedge
