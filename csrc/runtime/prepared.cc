#include "runtime/prepared.h"

namespace pyedge {

PreparedCache::Access::~Access() { cache_.residency_.drop(model_); }

const PackedBlock* PreparedCache::Access::find(const PackedId& id) const {
  const auto in_use = cache_.blocks_.find(id);
  if (in_use != cache_.blocks_.end()) return &in_use->second;
  const auto in_file = cache_.file_.blocks().find(id);
  return in_file != cache_.file_.blocks().end() ? &in_file->second : nullptr;
}

Status PreparedCache::Access::suits(size_t node, const Kernel& kernel, const OpArgs& args,
                                    bool* result) {
  *result = true;
  if (kernel.suits == nullptr) return {};
  const PackedId id{node, &kernel};
  if (const PackedBlock* known = find(id)) {
    *result = known->bytes > 0;
    return {};
  }
  PYEDGE_RETURN_IF_ERROR(cache_.residency_.restore(model_));
  *result = kernel.suits(args);
  if (!*result) {
    cache_.blocks_[id] = {};
    cache_.unsaved_ = true;
  }
  return {};
}

Status PreparedCache::Access::prepare(size_t node, const Kernel& kernel, const OpArgs& args,
                                      const void** prepared) {
  *prepared = nullptr;
  const Node& n = model_.graph.nodes[node];
  for (size_t slot = 0; slot < n.inputs.size(); ++slot) {
    const bool packed = slot < 32 && (kernel.packs >> slot & 1);
    if (packed || n.inputs[slot] == kAbsent) continue;
    const auto tensor = static_cast<size_t>(n.inputs[slot]);
    if (!model_.graph.tensors[tensor].constant) continue;
    PYEDGE_RETURN_IF_ERROR(cache_.residency_.pin(model_, tensor));
  }
  if (kernel.prepared_bytes == nullptr) return {};
  const PackedId id{node, &kernel};
  const size_t bytes = kernel.prepared_bytes(args);
  const auto in_use = cache_.blocks_.find(id);
  if (in_use != cache_.blocks_.end()) {
    *prepared = in_use->second.data;
    return {};
  }
  const PackedBlock* known = find(id);
  if (known != nullptr && known->bytes == bytes) {
    cache_.usage_.mapped_bytes += bytes;
    cache_.blocks_[id] = *known;
    *prepared = known->data;
  } else {
    PYEDGE_RETURN_IF_ERROR(cache_.residency_.restore(model_));
    AlignedBuffer block;
    if (!block.allocate(bytes)) {
      return {StatusCode::kOutOfMemory,
              "no memory for packed weights of " + std::to_string(bytes) + " bytes"};
    }
    kernel.prepare(args, block.data());
    *prepared = block.data();
    cache_.blocks_[id] = {block.data(), bytes};
    cache_.owned_.push_back(std::move(block));
    cache_.unsaved_ = true;
  }
  cache_.usage_.packed_bytes += bytes;
  return {};
}

void PreparedCache::Access::save() {
  if (cache_.path_.empty() || !cache_.unsaved_) return;
  // Together with what was in the file and is not in use here: other programs may use it.
  std::map<PackedId, PackedBlock> blocks = cache_.blocks_;
  blocks.insert(cache_.file_.blocks().begin(), cache_.file_.blocks().end());
  cache_.usage_.file = write_packed_file(cache_.path_, model_.sha256, blocks);
  cache_.unsaved_ = false;
}

Status PreparedCache::use_file(const std::string& path, const Model& model) {
  const std::lock_guard<std::mutex> lock(mutex_);
  PYEDGE_RETURN_IF_ERROR(file_.open(path, model.sha256, model.graph.nodes.size()));
  path_ = path;
  return {};
}

PreparedCache::Usage PreparedCache::usage(const Model& model) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  Usage usage = usage_;
  usage.model_bytes = residency_.bytes(model);
  return usage;
}

}  // namespace pyedge
