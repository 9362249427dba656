// Where each activation lies in the arena: a pure function of graph, shapes and what the
// kernels allow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph/graph.h"

namespace pyedge {

struct MemoryPlan {
  std::vector<size_t> offsets;  // by tensor; unused for constants
  size_t arena_bytes = 0;
};

// Tensors whose lifetimes overlap do not overlap in memory, kSlack included, with two exceptions:
// the output of a reshape is its input, and an output takes the place of an input that dies with
// its node where `in_place` (by node, as Kernel::in_place) allows it. keep_all gives every tensor
// but a reshape's output a place of its own until the end.
MemoryPlan plan_memory(const Graph& graph, const std::vector<Shape>& shapes,
                       const std::vector<uint32_t>& in_place, bool keep_all);

}  // namespace pyedge
