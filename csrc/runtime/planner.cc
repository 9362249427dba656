#include "runtime/planner.h"

#include <algorithm>

#include "kernels/kernel.h"

namespace pyedge {
namespace {

// Memory for one tensor, or for several of which each takes the place of the one before.
struct Block {
  size_t bytes;
  size_t first, last;  // the steps between which it is alive, both included
  size_t offset;
};

struct Blocks {
  std::vector<Block> blocks;
  std::vector<size_t> of;  // by tensor; kNoBlock for constants
};

constexpr size_t kNoBlock = static_cast<size_t>(-1);

// By tensor, counting the graph's inputs as step 0, its nodes from 1 and its outputs as the end.
std::vector<size_t> last_uses(const Graph& graph) {
  std::vector<size_t> last(graph.tensors.size(), 0);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    for (const int32_t index : graph.nodes[i].inputs) {
      if (index != kAbsent) last[static_cast<size_t>(index)] = i + 1;
    }
    last[static_cast<size_t>(graph.nodes[i].outputs[0])] = i + 1;
  }
  for (const int32_t index : graph.outputs) {
    last[static_cast<size_t>(index)] = graph.nodes.size() + 1;
  }
  return last;
}

size_t bytes_of(const Graph& graph, const std::vector<Shape>& shapes, int32_t tensor) {
  const auto t = static_cast<size_t>(tensor);
  return shapes[t].elements() * dtype_bytes(graph.tensors[t].dtype);
}

// The block of an input that nobody needs after this node and that the kernel may write over.
size_t block_in_place(const Graph& graph, const std::vector<Shape>& shapes, size_t index,
                      uint32_t in_place, const Blocks& made) {
  const Node& node = graph.nodes[index];
  const auto fits = [&](size_t slot) {
    const int32_t x = node.inputs[slot], y = node.outputs[0];
    return slot < 32 && (in_place >> slot & 1) &&
           graph.tensors[static_cast<size_t>(x)].dtype ==
               graph.tensors[static_cast<size_t>(y)].dtype &&
           bytes_of(graph, shapes, x) == bytes_of(graph, shapes, y);
  };
  const auto block_at = [&](size_t slot) {
    return node.inputs[slot] == kAbsent ? kNoBlock
                                        : made.of[static_cast<size_t>(node.inputs[slot])];
  };
  for (size_t slot = 0; slot < node.inputs.size(); ++slot) {
    const size_t block = block_at(slot);
    if (block == kNoBlock || made.blocks[block].last != index + 1) continue;
    bool legal = true;  // for every slot in which this memory is read
    for (size_t k = 0; k < node.inputs.size(); ++k) {
      legal = legal && (block_at(k) != block || fits(k));
    }
    if (legal) return block;
  }
  return kNoBlock;
}

Blocks make_blocks(const Graph& graph, const std::vector<Shape>& shapes,
                   const std::vector<uint32_t>& in_place, bool keep_all) {
  const std::vector<size_t> last = last_uses(graph);
  Blocks made{{}, std::vector<size_t>(graph.tensors.size(), kNoBlock)};
  const auto add = [&](int32_t index, size_t step) {
    const auto t = static_cast<size_t>(index);
    made.of[t] = made.blocks.size();
    const size_t end = keep_all ? graph.nodes.size() + 1 : std::max(step, last[t]);
    made.blocks.push_back({align_up(bytes_of(graph, shapes, index) + kSlack), step, end, 0});
  };
  for (const int32_t index : graph.inputs) add(index, 0);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    const auto output = static_cast<size_t>(node.outputs[0]);
    size_t block = kNoBlock;
    if (node.op == Op::k_reshape) {
      block = made.of[static_cast<size_t>(node.inputs[0])];
    } else if (!keep_all) {
      block = block_in_place(graph, shapes, i, in_place[i], made);
    }
    if (block == kNoBlock) {
      add(node.outputs[0], i + 1);
    } else {
      made.of[output] = block;
      made.blocks[block].last = std::max(made.blocks[block].last, last[output]);
    }
  }
  return made;
}

}  // namespace

MemoryPlan plan_memory(const Graph& graph, const std::vector<Shape>& shapes,
                       const std::vector<uint32_t>& in_place, bool keep_all) {
  Blocks made = make_blocks(graph, shapes, in_place, keep_all);
  // Greedy by size: the largest first, each at the lowest place that is free while it lives.
  std::vector<Block*> blocks;
  for (Block& block : made.blocks) blocks.push_back(&block);
  std::stable_sort(blocks.begin(), blocks.end(),
                   [](const Block* a, const Block* b) { return a->bytes > b->bytes; });
  MemoryPlan plan;
  std::vector<const Block*> neighbours;
  for (size_t i = 0; i < blocks.size(); ++i) {
    Block& block = *blocks[i];
    neighbours.clear();
    for (size_t k = 0; k < i; ++k) {
      if (blocks[k]->first <= block.last && block.first <= blocks[k]->last) {
        neighbours.push_back(blocks[k]);
      }
    }
    std::sort(neighbours.begin(), neighbours.end(),
              [](const Block* a, const Block* b) { return a->offset < b->offset; });
    for (const Block* other : neighbours) {
      if (block.offset + block.bytes <= other->offset) break;
      block.offset = std::max(block.offset, other->offset + other->bytes);
    }
    plan.arena_bytes = std::max(plan.arena_bytes, block.offset + block.bytes);
  }
  plan.offsets.assign(graph.tensors.size(), 0);
  for (size_t t = 0; t < made.of.size(); ++t) {
    if (made.of[t] != kNoBlock) plan.offsets[t] = made.blocks[made.of[t]].offset;
  }
  return plan;
}

}  // namespace pyedge
