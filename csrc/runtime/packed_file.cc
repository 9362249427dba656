#include "runtime/packed_file.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/build_id.h"
#include "digest/checksum.h"
#include "digest/sha256.h"

namespace pyedge {
namespace {

struct Header {
  uint8_t magic[8];
  uint32_t version, entries;
  uint64_t file_bytes;
  std::array<uint8_t, 32> key;
  uint64_t checksum;  // of the whole file with zero in its place
};
static_assert(sizeof(Header) == kAlignment);

struct Entry {
  uint32_t node, reserved;
  uint64_t offset, bytes;
  char kernel[40];  // padded with zeros
};
static_assert(sizeof(Entry) == kAlignment);

constexpr uint8_t kMagic[8] = {0x89, 'P', 'Y', 'P', 0x0d, 0x0a, 0x1a, 0x0a};
constexpr uint32_t kVersion = 1;
constexpr char kSuffix[] = ".pyepack";
constexpr uint8_t kPadding[kAlignment] = {};

bool has_suffix(const std::string& path) {
  constexpr size_t kLength = sizeof kSuffix - 1;
  return path.size() >= kLength && path.compare(path.size() - kLength, kLength, kSuffix) == 0;
}

std::array<uint8_t, 32> key_of(const std::string& model_sha256) {
  Sha256 sha;
  for (const std::string& text : {model_sha256, std::string(build_id())}) {
    sha.update(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  }
  return sha.digest();
}

const Kernel* find_kernel(const Entry& entry) {
  size_t count = 0;
  const Kernel* const* const all = kernels(&count);
  for (size_t i = 0; i < count; ++i) {
    if (std::strncmp(all[i]->name, entry.kernel, sizeof entry.kernel) == 0) return all[i];
  }
  return nullptr;
}

void update(Checksum* checksum, const Header& header) {
  Header copy = header;
  copy.checksum = 0;
  checksum->update(reinterpret_cast<const uint8_t*>(&copy), sizeof copy);
}

}  // namespace

Status PackedFile::open(const std::string& path, const std::string& model_sha256, size_t nodes) {
  File file;
  if (!File::open(path, &file).ok()) return {};
  const bool mapped = mapping_.map(file);
  const bool ours =
      mapping_.size() >= sizeof kMagic && std::memcmp(mapping_.data(), kMagic, sizeof kMagic) == 0;
  if (!ours && !has_suffix(path)) {
    return invalid_argument(path + ": is not a file of packed weights; name one that ends in " +
                            kSuffix + ", or a folder");
  }
  uint32_t entries = 0;
  if (!mapped || !file.is_private() || !read_header(model_sha256, &entries) ||
      !read_entries(entries, nodes)) {
    blocks_.clear();
  }
  return {};
}

bool PackedFile::read_header(const std::string& model_sha256, uint32_t* entries) const {
  Header header;
  if (mapping_.size() < sizeof header || mapping_.size() % kAlignment != 0) return false;
  std::memcpy(&header, mapping_.data(), sizeof header);
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0 || header.version != kVersion ||
      header.file_bytes != mapping_.size() || header.key != key_of(model_sha256)) {
    return false;
  }
  *entries = header.entries;
  Checksum checksum;
  update(&checksum, header);
  checksum.update(mapping_.data() + sizeof header, mapping_.size() - sizeof header);
  return checksum.value() == header.checksum;
}

bool PackedFile::read_entries(uint32_t count, size_t nodes) {
  const size_t size = mapping_.size();
  if (count > (size - sizeof(Header)) / sizeof(Entry)) return false;
  for (uint32_t i = 0; i < count; ++i) {
    Entry entry;
    std::memcpy(&entry, mapping_.data() + sizeof(Header) + i * sizeof entry, sizeof entry);
    const Kernel* const kernel = find_kernel(entry);
    if (kernel == nullptr || entry.node >= nodes || entry.reserved != 0 ||
        entry.offset % kAlignment != 0 || entry.offset > size ||
        entry.bytes > size - entry.offset) {
      return false;
    }
    blocks_[{entry.node, kernel}] = {mapping_.data() + entry.offset,
                                     static_cast<size_t>(entry.bytes)};
  }
  return true;
}

Status write_packed_file(const std::string& path, const std::string& model_sha256,
                         const std::map<PackedId, PackedBlock>& blocks) {
  std::vector<Entry> entries;
  std::vector<FilePiece> pieces(2);  // header and entries come first
  size_t offset = sizeof(Header) + blocks.size() * sizeof(Entry);
  for (const auto& [id, block] : blocks) {
    Entry& entry = entries.emplace_back();
    entry.node = static_cast<uint32_t>(id.first);
    entry.offset = offset, entry.bytes = block.bytes;
    const size_t length = std::strlen(id.second->name);
    if (length > sizeof entry.kernel) return {StatusCode::kUnsupported, "kernel name too long"};
    std::memcpy(entry.kernel, id.second->name, length);
    pieces.push_back({block.data, block.bytes});
    pieces.push_back({kPadding, align_up(block.bytes) - block.bytes});
    offset += align_up(block.bytes);
  }
  Header header{{}, kVersion, static_cast<uint32_t>(entries.size()), offset, key_of(model_sha256),
                0};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  pieces[0] = {&header, sizeof header};
  pieces[1] = {entries.data(), entries.size() * sizeof(Entry)};
  Checksum checksum;
  update(&checksum, header);
  checksum.update(reinterpret_cast<const uint8_t*>(entries.data()), pieces[1].bytes);
  for (const auto& [id, block] : blocks) {
    const size_t whole = block.bytes / kAlignment * kAlignment;
    checksum.update(block.data, whole);
    if (whole == block.bytes) continue;
    uint8_t last[kAlignment] = {};
    std::memcpy(last, block.data + whole, block.bytes - whole);
    checksum.update(last, sizeof last);
  }
  header.checksum = checksum.value();
  return replace_file(path, pieces);
}

}  // namespace pyedge
