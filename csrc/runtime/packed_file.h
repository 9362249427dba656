// Packed weights in a file, so that the next start maps them instead of packing again:
//
//   header   64 bytes: magic, u32 version, u32 entries, u64 size of the file, key, u64 checksum
//   entries  64 bytes each: u32 node, u32 zero, u64 offset, u64 bytes, name of the kernel
//   blocks   each at a multiple of 64
//
// The key is the SHA-256 of the model's digest and of this build of the library, which is part of
// what a kernel's name stands for. The file holds no paths. One that is not whole, not for this key
// or not written by this user is as good as none.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "kernels/kernel.h"

namespace pyedge {

using PackedId = std::pair<size_t, const Kernel*>;  // a node, packed for a kernel

struct PackedBlock {
  const uint8_t* data = nullptr;
  size_t bytes = 0;  // 0: the kernel does not suit the node's constants
};

class PackedFile {
 public:
  // `nodes`: of the model. A file that is of no use, or none, leaves no blocks. An error is a file
  // that may not be replaced either: it is not named *.pyepack and does not begin as such files do.
  Status open(const std::string& path, const std::string& model_sha256, size_t nodes);
  const std::map<PackedId, PackedBlock>& blocks() const { return blocks_; }

 private:
  bool read_header(const std::string& model_sha256, uint32_t* entries) const;
  bool read_entries(uint32_t count, size_t nodes);

  FileMapping mapping_;
  std::map<PackedId, PackedBlock> blocks_;
};

Status write_packed_file(const std::string& path, const std::string& model_sha256,
                         const std::map<PackedId, PackedBlock>& blocks);

}  // namespace pyedge
