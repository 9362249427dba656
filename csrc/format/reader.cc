#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "digest/sha256.h"
#include "format/format.h"
#include "graph/validate.h"
#include "kernels/kernel.h"

namespace pyedge {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is read in place");

constexpr uint8_t kMagic[8] = {0x89, 'P', 'Y', 'E', 0x0d, 0x0a, 0x1a, 0x0a};
constexpr uint32_t kVersion = 1;
constexpr size_t kDigestAt = 96, kHeaderBytes = 128, kMetadataBytes = 128;
constexpr size_t kTensorBytes = 64, kNodeBytes = 48;

// Reads fields one after the other; the caller has checked that the record is there.
class Fields {
 public:
  explicit Fields(const uint8_t* at) : at_(at) {}
  template <typename T>
  T next() {
    T value;
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  uint8_t u8() { return next<uint8_t>(); }
  uint32_t u32() { return next<uint32_t>(); }
  int32_t i32() { return next<int32_t>(); }
  uint64_t u64() { return next<uint64_t>(); }
  float f32() { return next<float>(); }

 private:
  const uint8_t* at_;
};

struct Header {
  uint32_t tensors, nodes, inputs, outputs, integers, floats, string_bytes;
  uint64_t weights_offset, weights_bytes;
  // Where the sections begin.
  size_t tensors_at, nodes_at, inputs_at, outputs_at, integers_at, floats_at, strings_at;
};

bool is_utf8(const uint8_t* s, size_t bytes) {
  for (size_t i = 0; i < bytes;) {
    const uint8_t lead = s[i];
    const size_t length = lead < 0x80       ? 1
                          : lead >> 5 == 6  ? 2
                          : lead >> 4 == 14 ? 3
                          : lead >> 3 == 30 ? 4
                                            : 0;
    if (length == 0 || lead == 0 || i + length > bytes) return false;
    uint32_t code = length == 1 ? lead : lead & (0x7f >> length);
    for (size_t k = 1; k < length; ++k) {
      if (s[i + k] >> 6 != 2) return false;
      code = code << 6 | (s[i + k] & 0x3f);
    }
    constexpr uint32_t kLeast[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (code < kLeast[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
    i += length;
  }
  return true;
}

using Digest = std::array<uint8_t, 32>;

// Of a file with zeros in the place of its digest.
Digest digest_of(const uint8_t* data, size_t bytes) {
  Sha256 sha;
  const uint8_t zeros[kHeaderBytes - kDigestAt] = {};
  sha.update(data, kDigestAt);
  sha.update(zeros, sizeof zeros);
  sha.update(data + kHeaderBytes, bytes - kHeaderBytes);
  return sha.digest();
}

std::string to_hex(const Digest& digest) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string hex;
  for (const uint8_t byte : digest) hex += {kHex[byte >> 4], kHex[byte & 15]};
  return hex;
}

class Reader {
 public:
  Reader(const uint8_t* data, size_t bytes) : data_(data), bytes_(bytes) {}

  Status read(const ReadOptions& options, Model* model) {
    PYEDGE_RETURN_IF_ERROR(read_header());
    PYEDGE_RETURN_IF_ERROR(check_digest(options, model));
    Graph& graph = model->graph;
    PYEDGE_RETURN_IF_ERROR(read_metadata(&graph.metadata));
    graph.tensors.resize(header_.tensors);
    for (uint32_t i = 0; i < header_.tensors; ++i) {
      PYEDGE_RETURN_IF_ERROR(read_tensor(i, &graph.tensors[i]));
    }
    graph.nodes.resize(header_.nodes);
    for (uint32_t i = 0; i < header_.nodes; ++i) {
      PYEDGE_RETURN_IF_ERROR(read_node(i, &graph.nodes[i]));
    }
    PYEDGE_RETURN_IF_ERROR(read_ends("inputs", header_.inputs_at, header_.inputs, &graph.inputs));
    PYEDGE_RETURN_IF_ERROR(
        read_ends("outputs", header_.outputs_at, header_.outputs, &graph.outputs));
    return validate(graph);
  }

 private:
  Status read_header() {
    if (bytes_ < kHeaderBytes + kMetadataBytes) {
      return invalid_model("file: " + std::to_string(bytes_) + " bytes, a model has at least " +
                           std::to_string(kHeaderBytes + kMetadataBytes));
    }
    if (std::memcmp(data_, kMagic, sizeof kMagic) != 0) {
      return invalid_model("magic: this is not a pyedge model");
    }
    Fields f(data_ + sizeof kMagic);
    const uint32_t version = f.u32();
    if (version != kVersion) {
      return invalid_model("version: " + std::to_string(version) + ", this library reads " +
                           std::to_string(kVersion));
    }
    const uint32_t flags = f.u32();
    const uint64_t file_bytes = f.u64();
    if (file_bytes != bytes_) {
      return invalid_model("file_size: the header says " + std::to_string(file_bytes) +
                           " bytes, there are " + std::to_string(bytes_));
    }
    Header& h = header_;
    h.tensors = f.u32(), h.nodes = f.u32(), h.inputs = f.u32(), h.outputs = f.u32();
    h.integers = f.u32(), h.floats = f.u32(), h.string_bytes = f.u32();
    const uint32_t reserved = f.u32();
    h.weights_offset = f.u64(), h.weights_bytes = f.u64();
    bool zeros = flags == 0 && reserved == 0;
    for (size_t i = 72; i < kDigestAt; ++i) zeros = zeros && data_[i] == 0;
    if (!zeros) return invalid_model("reserved: bytes of the header that must be zero are not");

    struct Count {
      const char* name;
      uint32_t value, limit;
    };
    const FormatLimits& limits = kFormatLimits;
    for (const Count& count : {Count{"tensor_count", h.tensors, limits.tensors},
                               Count{"node_count", h.nodes, limits.nodes},
                               Count{"input_count", h.inputs, limits.graph_ends},
                               Count{"output_count", h.outputs, limits.graph_ends},
                               Count{"integer_count", h.integers, limits.pool},
                               Count{"float_count", h.floats, limits.pool},
                               Count{"string_bytes", h.string_bytes, limits.pool}}) {
      if (count.value > count.limit) {
        return invalid_model(std::string(count.name) + ": " + std::to_string(count.value) +
                             ", the limit is " + std::to_string(count.limit));
      }
    }
    // The limits keep all of these far from overflow.
    h.tensors_at = kHeaderBytes + kMetadataBytes;
    h.nodes_at = h.tensors_at + size_t{h.tensors} * kTensorBytes;
    h.inputs_at = h.nodes_at + size_t{h.nodes} * kNodeBytes;
    h.outputs_at = h.inputs_at + size_t{h.inputs} * 4;
    h.integers_at = h.outputs_at + size_t{h.outputs} * 4;
    h.floats_at = h.integers_at + size_t{h.integers} * 4;
    h.strings_at = h.floats_at + size_t{h.floats} * 4;
    const size_t end = h.strings_at + h.string_bytes;
    if (h.weights_offset != (end + 63) / 64 * 64) {
      return invalid_model("weights_offset: " + std::to_string(h.weights_offset) +
                           ", the sections before it end at " + std::to_string(end));
    }
    if (h.weights_offset > bytes_ || h.weights_bytes != bytes_ - h.weights_offset) {
      return invalid_model("weights_bytes: " + std::to_string(h.weights_bytes) +
                           " do not fill the file from weights_offset to its end");
    }
    for (size_t i = end; i < h.weights_offset; ++i) {
      if (data_[i] != 0) return invalid_model("padding: before the weights must be zero");
    }
    return {};
  }

  Status check_digest(const ReadOptions& options, Model* model) {
    if (!options.verify_digest) return {};
    const Digest digest = digest_of(data_, bytes_);
    if (std::memcmp(digest.data(), data_ + kDigestAt, digest.size()) != 0) {
      return invalid_model("digest: the file was altered or damaged after it was written");
    }
    model->sha256 = to_hex(digest);
    return {};
  }

  Status read_string(const std::string& field, uint32_t offset, uint32_t length, std::string* out) {
    if (length > kFormatLimits.name_bytes || offset > header_.string_bytes ||
        length > header_.string_bytes - offset) {
      return invalid_model(field + ": lies outside the strings or is longer than " +
                           std::to_string(kFormatLimits.name_bytes) + " bytes");
    }
    const uint8_t* begin = data_ + header_.strings_at + offset;
    if (!is_utf8(begin, length)) return invalid_model(field + ": is not UTF-8");
    out->assign(reinterpret_cast<const char*>(begin), length);
    return {};
  }

  Status read_metadata(Metadata* m) {
    Fields f(data_ + kHeaderBytes);
    const uint32_t color = f.u32();
    if (color > 2) return invalid_model("metadata.color: " + std::to_string(color));
    m->color = static_cast<ColorOrder>(color);
    m->input_width = f.i32(), m->input_height = f.i32();
    bool finite = true;
    for (float& v : m->mean) v = f.f32(), finite = finite && std::isfinite(v);
    for (float& v : m->scale) v = f.f32(), finite = finite && std::isfinite(v);
    m->embedding_size = f.i32();
    const uint32_t has_landmarks = f.u32();
    m->has_landmarks = has_landmarks == 1;
    for (float& v : m->landmarks) v = f.f32(), finite = finite && std::isfinite(v);
    if (!finite) return invalid_model("metadata: mean, scale and landmarks must be finite");
    if (m->input_width < 0 || m->input_height < 0 || m->embedding_size < 0 || has_landmarks > 1) {
      return invalid_model("metadata: sizes and flags must not be negative");
    }
    const std::pair<const char*, std::string*> strings[] = {
        {"metadata.model_name", &m->model_name},
        {"metadata.feature_space", &m->feature_space},
        {"metadata.producer", &m->producer}};
    for (const auto& [field, out] : strings) {
      const uint32_t offset = f.u32(), length = f.u32();
      PYEDGE_RETURN_IF_ERROR(read_string(field, offset, length, out));
    }
    return {};
  }

  Status read_tensor(uint32_t index, Tensor* t) {
    Fields f(data_ + header_.tensors_at + size_t{index} * kTensorBytes);
    const std::string field = "tensor " + std::to_string(index);
    const uint32_t name_at = f.u32(), name_bytes = f.u32();
    PYEDGE_RETURN_IF_ERROR(read_string(field + ".name", name_at, name_bytes, &t->name));
    const uint8_t dtype = f.u8(), rank = f.u8(), constant = f.u8(), reserved = f.u8();
    if (dtype > 2) return invalid_model(field + ".dtype: " + std::to_string(dtype));
    if (rank > kMaxRank) return invalid_model(field + ".rank: " + std::to_string(rank));
    if (constant > 1 || reserved != 0) return invalid_model(field + ".constant: must be 0 or 1");
    t->dtype = static_cast<DType>(dtype);
    t->constant = constant == 1;
    t->shape.rank = rank;
    for (int axis = 0; axis < kMaxRank; ++axis) {
      t->shape[axis] = f.i32();
      if (axis >= rank && t->shape[axis] != 0) {
        return invalid_model(field + ".dims: must be zero past the rank");
      }
    }
    t->quant.scale = f.f32();
    t->quant.zero_point = f.i32();
    const uint64_t offset = f.u64(), length = f.u64();
    if (f.u32() != 0) return invalid_model(field + ".reserved: must be zero");
    if (!t->constant) {
      if (offset != 0 || length != 0) {
        return invalid_model(field + ".data: an activation has none");
      }
      return {};
    }
    PYEDGE_RETURN_IF_ERROR(check_shape(t->shape, field));
    if (length != t->shape.elements() * dtype_bytes(t->dtype)) {
      return invalid_model(field + ".data_bytes: " + std::to_string(length) + " do not fit shape " +
                           t->shape.to_string());
    }
    if (offset % kAlignment != 0 || offset > header_.weights_bytes ||
        length > header_.weights_bytes - offset) {
      return invalid_model(field + ".data_offset: " + std::to_string(offset) +
                           " is not aligned to 64 or lies outside the weights");
    }
    t->data = data_ + header_.weights_offset + offset;
    return {};
  }

  // A run of `count` values of a pool with `size` values.
  Status check_run(const std::string& field, uint32_t offset, uint32_t count, uint32_t size) {
    if (offset > size || count > size - offset) {
      return invalid_model(field + ": lies outside its pool");
    }
    return {};
  }

  template <typename T>
  void copy_run(size_t pool_at, uint32_t offset, uint32_t count, std::vector<T>* out) {
    out->resize(count);
    if (count > 0)
      std::memcpy(out->data(), data_ + pool_at + size_t{offset} * 4, size_t{count} * 4);
  }

  Status read_node(uint32_t index, Node* n) {
    Fields f(data_ + header_.nodes_at + size_t{index} * kNodeBytes);
    std::string field = "node " + std::to_string(index);
    const uint32_t code = f.u32();
    if (find_op(code) == nullptr) {
      return invalid_model(field + ".op: " + std::to_string(code) + " is not an operation");
    }
    n->op = static_cast<Op>(code);
    const uint32_t name_at = f.u32(), name_bytes = f.u32();
    PYEDGE_RETURN_IF_ERROR(read_string(field + ".name", name_at, name_bytes, &n->name));
    const auto integers = [&](const char* name, std::vector<int32_t>* out) -> Status {
      const uint32_t at = f.u32(), count = f.u32();
      PYEDGE_RETURN_IF_ERROR(check_run(field + "." + name, at, count, header_.integers));
      copy_run(header_.integers_at, at, count, out);
      return {};
    };
    PYEDGE_RETURN_IF_ERROR(integers("inputs", &n->inputs));
    PYEDGE_RETURN_IF_ERROR(integers("outputs", &n->outputs));
    PYEDGE_RETURN_IF_ERROR(integers("ints", &n->ints));
    const uint32_t at = f.u32(), count = f.u32();
    PYEDGE_RETURN_IF_ERROR(check_run(field + ".floats", at, count, header_.floats));
    copy_run(header_.floats_at, at, count, &n->floats);
    if (f.u32() != 0) return invalid_model(field + ".reserved: must be zero");
    return {};
  }

  Status read_ends(const char* field, size_t at, uint32_t count, std::vector<int32_t>* out) {
    if (count == 0) return invalid_model(std::string(field) + ": a model has at least one");
    copy_run(at, 0, count, out);
    return {};
  }

  const uint8_t* data_;
  size_t bytes_;
  Header header_{};
};

}  // namespace

Status read_model(const uint8_t* data, size_t bytes, const ReadOptions& options,
                  std::shared_ptr<const Model>* model) {
  if (bytes > kFormatLimits.file_bytes) return invalid_model("file: larger than the format allows");
  auto result = std::make_shared<Model>();
  if (!result->bytes.allocate(bytes + kSlack)) {
    return {StatusCode::kOutOfMemory,
            "no memory for a model of " + std::to_string(bytes) + " bytes"};
  }
  if (bytes > 0) std::memcpy(result->bytes.data(), data, bytes);
  result->file_bytes = bytes;
  PYEDGE_RETURN_IF_ERROR(Reader(result->bytes.data(), bytes).read(options, result.get()));
  *model = std::move(result);
  return {};
}

Status read_model_file(const std::string& path, std::shared_ptr<const Model>* model) {
  const auto named = [&](const Status& status) {
    return Status(status.code(), path + ": " + status.message());
  };
  auto result = std::make_shared<Model>();
  PYEDGE_RETURN_IF_ERROR(File::open(path, &result->file));
  size_t bytes = 0;
  if (Status status = result->file.size(&bytes); !status.ok()) return named(status);
  if (bytes > kFormatLimits.file_bytes) {
    return invalid_model(path + ": larger than the format allows");
  }
  if (!result->bytes.allocate(bytes + kSlack)) {
    return {StatusCode::kOutOfMemory, path + ": no memory for " + std::to_string(bytes) + " bytes"};
  }
  // Not mapped: a file that is cut short while it is in use would end the program.
  if (Status status = result->file.read(result->bytes.data(), bytes); !status.ok()) {
    return named(status);
  }
  result->file_bytes = bytes;
  if (Status status = Reader(result->bytes.data(), bytes).read({}, result.get()); !status.ok()) {
    return named(status);
  }
  *model = std::move(result);
  return {};
}

Status reread_model(const Model& model, AlignedBuffer* bytes) {
  if (!bytes->allocate(model.file_bytes)) {
    return {StatusCode::kOutOfMemory, "no memory to read the model's weights again"};
  }
  Status status = model.file.read(bytes->data(), model.file_bytes);
  if (status.ok() && to_hex(digest_of(bytes->data(), model.file_bytes)) != model.sha256) {
    status = {StatusCode::kIo, "altered"};
  }
  if (status.ok()) return {};
  return {StatusCode::kIo, "the model's file was overwritten while it was in use (" +
                               status.message() + "): load it again"};
}

}  // namespace pyedge
