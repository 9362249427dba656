#include "base/buffer.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace pyedge {

void AlignedBuffer::release_pages([[maybe_unused]] size_t begin, [[maybe_unused]] size_t end) {
#if defined(__linux__)
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto base = reinterpret_cast<uintptr_t>(data_);
  const uintptr_t first = (base + begin + page - 1) / page * page,
                  last = (base + end) / page * page;
  if (first < last) madvise(data_ + (first - base), last - first, MADV_DONTNEED);
#endif
}

}  // namespace pyedge
