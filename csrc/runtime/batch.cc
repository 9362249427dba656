#include "runtime/batch.h"

#include <algorithm>

#include "graph/shapes.h"

namespace pyedge {
namespace {

// Whether every activation begins with the batch when it has this size.
bool batch_comes_first(const Graph& graph, std::vector<Shape> inputs, int32_t batch) {
  for (Shape& shape : inputs) shape[0] = batch;
  std::vector<Shape> shapes;
  if (!infer_shapes(graph, inputs, &shapes).ok()) return false;
  for (size_t t = 0; t < shapes.size(); ++t) {
    const bool used = !graph.tensors[t].constant && shapes[t].rank > 0;
    if (used && shapes[t][0] != batch) return false;
  }
  return true;
}

// These keep the size of an axis though its elements change places or mix.
bool works_along_batch(const Node& node) {
  const bool along_axis =
      node.op == Op::k_slice || node.op == Op::k_softmax || node.op == Op::k_l2_normalize;
  return along_axis && node.ints[0] == 0;
}

}  // namespace

bool images_are_independent(const Graph& graph, const std::vector<Shape>& inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Shape& declared = graph.tensors[static_cast<size_t>(graph.inputs[i])].shape;
    if (inputs[i].rank == 0 || inputs[i][0] != inputs[0][0] || declared[0] != kAnyDim) return false;
  }
  if (std::any_of(graph.nodes.begin(), graph.nodes.end(), works_along_batch)) return false;
  // Two sizes, as one of them could be that of another axis by chance.
  return batch_comes_first(graph, inputs, inputs[0][0]) &&
         batch_comes_first(graph, inputs, inputs[0][0] + 1);
}

size_t batch_pieces(size_t batch, size_t threads) {
  if (threads < 2 || batch < threads) return 1;
  size_t pieces = threads;
  while (batch % pieces != 0) ++pieces;
  return pieces;
}

std::vector<Shape> piece_shapes(std::vector<Shape> inputs, size_t pieces) {
  for (Shape& shape : inputs) shape[0] /= static_cast<int32_t>(pieces);
  return inputs;
}

}  // namespace pyedge
