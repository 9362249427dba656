// The loop of all instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyedge {
namespace {

constexpr size_t kReadBytes = 1024;  // in one round

// Register::Lanes is a vector of int32_t.
template <typename Register>
int read_memory(const void* data, size_t bytes) {
  using Lanes = typename Register::Lanes;
  constexpr size_t kSums = 8;  // independent of each other, to hide the latency of an operation
  const auto* const lanes = static_cast<const Lanes*>(data);
  Lanes sums[kSums] = {};
  for (size_t v = 0; v < bytes / sizeof(Lanes); v += kReadBytes / sizeof(Lanes)) {
#pragma GCC unroll 64
    for (size_t i = 0; i < kReadBytes / sizeof(Lanes); ++i) sums[i % kSums] ^= lanes[v + i];
  }
  for (size_t i = 1; i < kSums; ++i) sums[0] ^= sums[i];
  int32_t total = 0;
  for (size_t i = 0; i < sizeof(Lanes) / sizeof(int32_t); ++i) total ^= sums[0][i];
  return total;
}

}  // namespace
}  // namespace pyedge
