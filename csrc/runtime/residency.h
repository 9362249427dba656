// Which bytes of a model are in memory. What all kernels in use have packed is given back to the
// system, and read from the file again should another kernel have to pack it.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "base/status.h"
#include "format/format.h"

namespace pyedge {

class Residency {
 public:
  // Must come before anything reads constants; until the next drop they are there.
  Status restore(const Model& model);
  // The tensor is in memory from now on: kernels read it whenever they run.
  Status pin(const Model& model, size_t tensor);
  // Drops what is not pinned, where the model has a file to read it from again.
  void drop(const Model& model);
  // Of the model's bytes, those that are in memory.
  size_t bytes(const Model& model) const;

 private:
  std::vector<bool> pinned_;                        // by tensor
  std::vector<std::pair<size_t, size_t>> dropped_;  // [begin, end) in the model's bytes
};

}  // namespace pyedge
