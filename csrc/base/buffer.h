// Aligned memory that is not initialized twice and reports exhaustion as a null.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

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

  // 64-byte aligned (at least) and zeroed. False where there is no memory; the buffer is then
  // empty.
  bool allocate(size_t bytes) {
    std::free(std::exchange(data_, nullptr));
    bytes_ = 0;
    if (bytes > SIZE_MAX - kHugePage) return false;
    const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : 64;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    if (rounded == 0) return true;
    data_ = static_cast<uint8_t*>(std::aligned_alloc(alignment, rounded));
    if (data_ == nullptr) return false;
#if defined(__linux__)
    // The last, begun huge page stays one of small pages, of which only what is used is taken.
    if (alignment == kHugePage) madvise(data_, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
    std::memset(data_, 0, (bytes + 63) / 64 * 64);
    bytes_ = bytes;
    return true;
  }

  // Gives the whole pages between the two offsets back to the system; they read as zeros then, or
  // as before where the system has no such call.
  void release_pages(size_t begin, size_t end);

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return bytes_; }

 private:
  // Large blocks ask for huge pages: weights that stream through a layer then wait for memory, not
  // for page tables.
  static constexpr size_t kHugePage = size_t{2} << 20;

  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace pyedge
