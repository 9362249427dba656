// Packed weights and tables: made once for a model, shared by its sessions and their plans.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "base/buffer.h"
#include "base/status.h"
#include "kernels/kernel.h"

namespace pyedge {

class PreparedCache {
 public:
  // The block of that kernel for that node; null where the kernel prepares nothing.
  Status get(size_t node, const Kernel& kernel, const OpArgs& args, const void** prepared) {
    *prepared = nullptr;
    if (kernel.prepared_bytes == nullptr) return {};
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto [entry, added] = blocks_.try_emplace({node, &kernel});
    if (added) {
      const size_t bytes = kernel.prepared_bytes(args);
      if (!entry->second.allocate(bytes)) {
        blocks_.erase(entry);
        return {StatusCode::kOutOfMemory,
                "no memory for packed weights of " + std::to_string(bytes) + " bytes"};
      }
      kernel.prepare(args, entry->second.data());
      bytes_ += bytes;
    }
    *prepared = entry->second.data();
    return {};
  }

  size_t bytes() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return bytes_;
  }

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<size_t, const Kernel*>, AlignedBuffer> blocks_;
  size_t bytes_ = 0;
};

}  // namespace pyedge
