// What must hold of a graph before anything else looks at it.
#pragma once

#include <string>

#include "base/status.h"
#include "graph/graph.h"

namespace pyedge {

constexpr int32_t kMaxDim = 1 << 24;
constexpr size_t kMaxElements = size_t{1} << 30;
constexpr size_t kMaxAccumulations = 65536;  // 65536 * 255 * 127 < 2^31: the int32 bound

// Every dimension positive and bounded, and their product too.
Status check_shape(const Shape& shape, const std::string& field);

// Indices, order, arity, attributes, dtypes, quantization and the shapes of constants. After
// this, infer_shapes and the kernels may rely on them. Errors are kInvalidModel.
Status validate(const Graph& graph);

}  // namespace pyedge
