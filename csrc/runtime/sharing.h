// Whether it pays to wake the other threads for a step: its first runs try both ways in turn, and
// the faster one stays. A small layer is done before a sleeping thread is awake. Which way a step
// takes changes none of its bytes.
#pragma once

namespace pyedge {

class Sharing {
 public:
  bool trying() const { return runs_ < 2 * kTrials; }
  bool alone() const { return trying() ? runs_ % 2 == 0 : alone_ < shared_; }

  // How long the run took, while trying.
  void note(double seconds) {
    double& least = alone() ? alone_ : shared_;
    if (seconds < least) least = seconds;
    ++runs_;
  }

 private:
  static constexpr int kTrials = 4;  // of each; the least of them is the least disturbed
  int runs_ = 0;
  double alone_ = 1e30, shared_ = 1e30;  // seconds
};

}  // namespace pyedge
