// Random numbers that are the same with every standard library.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyedge {

// SplitMix64 (Steele et al., 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // Both bounds included.
  int32_t range(int32_t low, int32_t high) {
    return low + static_cast<int32_t>(next() % static_cast<uint64_t>(high - low + 1));
  }
  bool one_in(int32_t n) { return range(1, n) == 1; }
  float real(float low, float high) {
    return low + (high - low) * (static_cast<float>(next() >> 40) * 0x1p-24f);
  }
  template <typename T, size_t N>
  T pick(const T (&values)[N]) {
    return values[range(0, static_cast<int32_t>(N) - 1)];
  }

 private:
  uint64_t state_;
};

}  // namespace pyedge
