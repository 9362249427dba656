#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace pyedge {
namespace {

Status io_error() { return {StatusCode::kIo, std::strerror(errno)}; }

bool write_all(int descriptor, const FilePiece& piece) {
  const uint8_t* data = static_cast<const uint8_t*>(piece.data);
  for (size_t left = piece.bytes; left > 0;) {
    const ssize_t written = write(descriptor, data, left);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    data += written, left -= static_cast<size_t>(written);
  }
  return true;
}

}  // namespace

File::~File() {
  if (descriptor_ >= 0) close(descriptor_);
}

Status File::open(const std::string& path, File* file) {
  File opened;
  // Without O_NONBLOCK a FIFO would wait for its writer.
  opened.descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (!opened.is_open()) return {StatusCode::kIo, path + ": " + std::strerror(errno)};
  *file = std::move(opened);
  return {};
}

Status File::size(size_t* bytes) const {
  struct stat info;
  if (fstat(descriptor_, &info) != 0) return io_error();
  if (!S_ISREG(info.st_mode)) return {StatusCode::kIo, "not a regular file"};
  *bytes = static_cast<size_t>(info.st_size);
  return {};
}

Status File::read(uint8_t* data, size_t bytes) const {
  for (size_t at = 0; at < bytes;) {
    const ssize_t got = pread(descriptor_, data + at, bytes - at, static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error();
    if (got == 0) return {StatusCode::kIo, "shorter than it was"};
    at += static_cast<size_t>(got);
  }
  return {};
}

bool File::is_private() const {
  struct stat info;
  return fstat(descriptor_, &info) == 0 && info.st_uid == geteuid() &&
         (info.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

FileMapping::~FileMapping() {
  if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), bytes_);
}

bool FileMapping::map(const File& file) {
  size_t bytes = 0;
  if (!file.size(&bytes).ok() || bytes == 0) return false;
  FileMapping mapping;
  void* data = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  if (data == MAP_FAILED) return false;
  mapping.data_ = static_cast<const uint8_t*>(data);
  mapping.bytes_ = bytes;
  *this = std::move(mapping);
  return true;
}

Status replace_file(const std::string& path, const std::vector<FilePiece>& pieces) {
  std::string name = path + ".XXXXXX";
  const int descriptor = mkostemp(name.data(), O_CLOEXEC);  // with mode 0600
  if (descriptor < 0) return {StatusCode::kIo, path + ": " + std::strerror(errno)};
  bool written = std::all_of(pieces.begin(), pieces.end(),
                             [&](const FilePiece& piece) { return write_all(descriptor, piece); });
  written = close(descriptor) == 0 && written;
  written = written && std::rename(name.c_str(), path.c_str()) == 0;
  if (written) return {};
  const int error = errno;
  unlink(name.c_str());
  return {StatusCode::kIo, path + ": " + std::strerror(error)};
}

}  // namespace pyedge
