#include "digest/checksum.h"

#include <cstring>

namespace pyedge {
namespace {

// An odd factor, so that each step is a bijection: a single changed word always shows.
constexpr uint64_t kFactor = 0x9e3779b97f4a7c15;  // 2^64 over the golden ratio

uint64_t step(uint64_t sum, uint64_t word) {
  const uint64_t x = (sum ^ word) * kFactor;
  return x << 29 | x >> 35;
}

}  // namespace

void Checksum::update(const uint8_t* data, size_t bytes) {
  for (size_t at = 0; at < bytes; at += sizeof lanes_) {
    uint64_t words[8];
    std::memcpy(words, data + at, sizeof words);
    for (size_t lane = 0; lane < 8; ++lane) lanes_[lane] = step(lanes_[lane], words[lane]);
  }
}

uint64_t Checksum::value() const {
  uint64_t sum = 0;
  for (const uint64_t lane : lanes_) sum = step(sum, lane);
  return sum;
}

}  // namespace pyedge
