// Files as the library uses them: read whole, mapped, or written so that no reader ever sees a
// part.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"

namespace pyedge {

// A file open for reading. It stays readable when it is renamed or deleted.
class File {
 public:
  File() = default;
  File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  File& operator=(File&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File();

  static Status open(const std::string& path, File* file);
  bool is_open() const { return descriptor_ >= 0; }
  // The size of a regular file; an error names what is wrong but not the file.
  Status size(size_t* bytes) const;
  // The first `bytes` of the file.
  Status read(uint8_t* data, size_t bytes) const;
  // Whether it belongs to this user and nobody else can write to it.
  bool is_private() const;
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_ = -1;
};

// A file in memory, read-only. What is cut off the file is gone from memory too: only for files
// that nobody but this library writes.
class FileMapping {
 public:
  FileMapping() = default;
  FileMapping(FileMapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  FileMapping& operator=(FileMapping&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  FileMapping(const FileMapping&) = delete;
  FileMapping& operator=(const FileMapping&) = delete;
  ~FileMapping();

  // False where there is nothing to map, or no memory for it.
  bool map(const File& file);
  const uint8_t* data() const { return data_; }
  size_t size() const { return bytes_; }

 private:
  const uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

struct FilePiece {
  const void* data;
  size_t bytes;
};

// Writes the pieces one behind the other to a new file that only this user can read and write, and
// puts it in the place of `path`.
Status replace_file(const std::string& path, const std::vector<FilePiece>& pieces);

}  // namespace pyedge
