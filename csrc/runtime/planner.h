// Where each activation lies in the arena: a pure function of graph and shapes.
#pragma once

#include <cstddef>
#include <vector>

#include "graph/graph.h"

namespace pyedge {

struct MemoryPlan {
  std::vector<size_t> offsets;  // by tensor; unused for constants
  size_t arena_bytes = 0;
};

// Tensors whose lifetimes overlap do not overlap in memory, kSlack included. The output of a
// reshape is its input. keep_all gives every tensor a place of its own until the end.
MemoryPlan plan_memory(const Graph& graph, const std::vector<Shape>& shapes, bool keep_all);

}  // namespace pyedge
