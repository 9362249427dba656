#include "runtime/planner.h"

#include <algorithm>
#include <numeric>

#include "kernels/kernel.h"

namespace pyedge {
namespace {

struct Block {
  size_t tensor, bytes;
  size_t first, last;  // the steps between which it is alive, both included
  size_t offset;
};

// Lifetimes; a reshape's output is counted to the tensor it aliases, noted in `root`.
std::vector<Block> lifetimes(const Graph& graph, const std::vector<Shape>& shapes, bool keep_all,
                             std::vector<size_t>* root) {
  const size_t end = graph.nodes.size() + 1;
  std::vector<Block> blocks;
  std::vector<size_t> block_of(graph.tensors.size());
  root->resize(graph.tensors.size());
  std::iota(root->begin(), root->end(), size_t{0});
  const auto add = [&](int32_t index, size_t step) {
    const auto t = static_cast<size_t>(index);
    const size_t bytes = shapes[t].elements() * dtype_bytes(graph.tensors[t].dtype) + kSlack;
    block_of[t] = blocks.size();
    blocks.push_back({t, align_up(bytes), step, keep_all ? end : step, 0});
  };
  const auto use = [&](int32_t index, size_t step) {
    if (index == kAbsent || graph.tensors[static_cast<size_t>(index)].constant) return;
    Block& block = blocks[block_of[(*root)[static_cast<size_t>(index)]]];
    block.last = std::max(block.last, step);
  };
  for (const int32_t index : graph.inputs) add(index, 0);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    for (const int32_t index : node.inputs) use(index, i + 1);
    if (node.op == Op::k_reshape) {
      (*root)[static_cast<size_t>(node.outputs[0])] = (*root)[static_cast<size_t>(node.inputs[0])];
    } else {
      add(node.outputs[0], i + 1);
    }
  }
  for (const int32_t index : graph.outputs) use(index, end);
  return blocks;
}

}  // namespace

MemoryPlan plan_memory(const Graph& graph, const std::vector<Shape>& shapes, bool keep_all) {
  std::vector<size_t> root;
  std::vector<Block> blocks = lifetimes(graph, shapes, keep_all, &root);
  // Greedy by size: the largest first, each at the lowest place that is free while it lives.
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const Block& a, const Block& b) { return a.bytes > b.bytes; });
  MemoryPlan plan;
  plan.offsets.assign(graph.tensors.size(), 0);
  std::vector<const Block*> neighbours;
  for (size_t i = 0; i < blocks.size(); ++i) {
    Block& block = blocks[i];
    neighbours.clear();
    for (size_t k = 0; k < i; ++k) {
      if (blocks[k].first <= block.last && block.first <= blocks[k].last) {
        neighbours.push_back(&blocks[k]);
      }
    }
    std::sort(neighbours.begin(), neighbours.end(),
              [](const Block* a, const Block* b) { return a->offset < b->offset; });
    for (const Block* other : neighbours) {
      if (block.offset + block.bytes <= other->offset) break;
      block.offset = std::max(block.offset, other->offset + other->bytes);
    }
    plan.offsets[block.tensor] = block.offset;
    plan.arena_bytes = std::max(plan.arena_bytes, block.offset + block.bytes);
  }
  for (size_t t = 0; t < root.size(); ++t) plan.offsets[t] = plan.offsets[root[t]];
  return plan;
}

}  // namespace pyedge
