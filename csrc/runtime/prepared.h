// Packed weights and tables: made once for a model, shared by its sessions and their plans, kept in
// a file where one is named.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/status.h"
#include "format/format.h"
#include "kernels/kernel.h"
#include "runtime/packed_file.h"
#include "runtime/residency.h"

namespace pyedge {

class PreparedCache {
 public:
  // What a plan needs of the model's constants, one after the other, by one thread at a time. The
  // constants are in memory only as long as this lives, but for those that kernels run on.
  class Access {
   public:
    Access(PreparedCache* cache, const Model& model)
        : cache_(*cache), model_(model), lock_(cache->mutex_) {}
    ~Access();
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

    // Whether the kernel suits the values of the node's constants.
    Status suits(size_t node, const Kernel& kernel, const OpArgs& args, bool* result);
    // The block of that kernel for that node; null where the kernel prepares nothing.
    Status prepare(size_t node, const Kernel& kernel, const OpArgs& args, const void** prepared);
    // Writes the file where there is one and something new for it.
    void save();

   private:
    const PackedBlock* find(const PackedId& id) const;

    PreparedCache& cache_;
    const Model& model_;
    const std::lock_guard<std::mutex> lock_;
  };

  // Takes the blocks from this file, if it is of use, and keeps new ones there. Before any plan.
  Status use_file(const std::string& path, const Model& model);

  struct Usage {
    size_t packed_bytes = 0;  // of the blocks in use
    size_t mapped_bytes = 0;  // those of them that are mapped from the file
    size_t model_bytes = 0;   // what is left in memory of the model's own
    Status file;              // of the last time the file was written
  };
  Usage usage(const Model& model) const;

 private:
  mutable std::mutex mutex_;
  std::map<PackedId, PackedBlock> blocks_;  // in use
  std::vector<AlignedBuffer> owned_;        // what of them is not mapped
  Residency residency_;
  std::string path_;  // empty without a file
  PackedFile file_;
  bool unsaved_ = false;
  Usage usage_;
};

}  // namespace pyedge
