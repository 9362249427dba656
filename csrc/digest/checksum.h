// A checksum at the speed of memory. It finds damage; it does not withstand who forges.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pyedge {

class Checksum {
 public:
  // `bytes` must be a multiple of 64.
  void update(const uint8_t* data, size_t bytes);
  uint64_t value() const;

 private:
  uint64_t lanes_[8] = {1, 2, 3, 4, 5, 6, 7, 8};
};

}  // namespace pyedge
