// Aligned memory that is not initialized twice and reports exhaustion as a null.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace pyedge {

class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() { std::free(data_); }

  // 64-byte aligned and zeroed. False where there is no memory; the buffer is then empty.
  bool allocate(size_t bytes) {
    std::free(std::exchange(data_, nullptr));
    bytes_ = 0;
    if (bytes > SIZE_MAX - 64) return false;
    const size_t rounded = (bytes + 63) / 64 * 64;
    if (rounded == 0) return true;
    data_ = static_cast<uint8_t*>(std::aligned_alloc(64, rounded));
    if (data_ == nullptr) return false;
    std::memset(data_, 0, rounded);
    bytes_ = bytes;
    return true;
  }

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return bytes_; }

 private:
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace pyedge
