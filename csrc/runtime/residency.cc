#include "runtime/residency.h"

#include <algorithm>
#include <cstring>

#include "kernels/kernel.h"

namespace pyedge {

Status Residency::restore(const Model& model) {
  if (dropped_.empty()) return {};
  AlignedBuffer fresh;
  PYEDGE_RETURN_IF_ERROR(reread_model(model, &fresh));
  // Pinned constants, which other sessions may be reading, are not touched.
  for (const auto& [begin, end] : dropped_) {
    std::memcpy(model.bytes.data() + begin, fresh.data() + begin, end - begin);
  }
  dropped_.clear();
  return {};
}

Status Residency::pin(const Model& model, size_t tensor) {
  pinned_.resize(model.graph.tensors.size(), false);
  if (pinned_[tensor]) return {};
  PYEDGE_RETURN_IF_ERROR(restore(model));
  pinned_[tensor] = true;
  return {};
}

void Residency::drop(const Model& model) {
  if (!model.file.is_open() || !dropped_.empty()) return;
  std::vector<std::pair<size_t, size_t>> kept;
  for (size_t t = 0; t < pinned_.size(); ++t) {
    if (!pinned_[t]) continue;
    const Tensor& tensor = model.graph.tensors[t];
    const auto begin = static_cast<size_t>(tensor.data - model.bytes.data());
    kept.emplace_back(begin, begin + tensor.shape.elements() * dtype_bytes(tensor.dtype) + kSlack);
  }
  std::sort(kept.begin(), kept.end());
  kept.emplace_back(model.file_bytes, model.file_bytes);
  size_t from = 0;
  for (const auto& [begin, end] : kept) {
    if (from < begin) {
      model.bytes.release_pages(from, begin);
      dropped_.emplace_back(from, begin);
    }
    from = std::max(from, end);
  }
}

size_t Residency::bytes(const Model& model) const {
  size_t bytes = model.file_bytes;
  for (const auto& [begin, end] : dropped_) bytes -= end - begin;
  return bytes;
}

}  // namespace pyedge
