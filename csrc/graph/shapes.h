// Shapes of all tensors from those of the inputs.
#pragma once

#include <vector>

#include "base/status.h"
#include "graph/graph.h"

namespace pyedge {

// `graph` is valid; one shape for each graph input. Errors are kInvalidArgument, name the node
// and say what it needs.
Status infer_shapes(const Graph& graph, const std::vector<Shape>& inputs,
                    std::vector<Shape>* shapes);

// The elements that slice takes of an axis: count of them, from first in steps.
struct SliceRange {
  int32_t first, count;
};
SliceRange slice_range(int32_t dim, int32_t start, int32_t stop, int32_t step);

// Multiply-accumulates of a node; 0 for operations without a weight.
double count_macs(const Node& node, const std::vector<Shape>& shapes);

}  // namespace pyedge
