// SHA-256 (FIPS 180-4).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "cpu/cpu.h"

namespace pyedge {

class Sha256 {
 public:
  // The features are an argument, so that a test can compare what several CPUs would do.
  explicit Sha256(const CpuFeatures& features = cpu_features());

  void update(const uint8_t* data, size_t bytes);
  // Ends the computation; the object must not be used after it.
  std::array<uint8_t, 32> digest();

 private:
  void (*compress_)(uint32_t* state, const uint8_t* data, size_t blocks);
  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> buffer_{};
  uint64_t bytes_ = 0;
};

}  // namespace pyedge
