// Random numbers that are the same with every standard library.
#pragma once

#include <cinttypes>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

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

// The program `NAME [COUNT [FIRST]]` of tests that check items of an endless list: its exit status.
template <class Tests>
int check_items(int argc, char** argv, uint64_t count, const char* items) {
  if (argc > 1) count = std::strtoull(argv[1], nullptr, 10);
  const uint64_t first = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
  Tests tests;
  uint64_t failed = 0;
  for (uint64_t i = 0; i < count; ++i) failed += tests.check(first + i) ? 0 : 1;
  const bool reached = tests.summarize();
  std::printf("%" PRIu64 " of %" PRIu64 " %s differ\n", failed, count, items);
  // A replayed item need not reach every kernel.
  return failed == 0 && (reached || argc > 2) ? 0 : 1;
}

}  // namespace pyedge
