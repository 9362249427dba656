// Tensors that live at the same time never share memory; others do.
#include "runtime/planner.h"

#include "check.h"
#include "graph/shapes.h"
#include "graphs.h"

namespace pyedge {
namespace {

struct Lifetime {
  size_t tensor, first, last;
};

// Written independently of the planner: from the producer to the last consumer.
std::vector<Lifetime> lifetimes(const Graph& graph) {
  std::vector<Lifetime> result;
  for (size_t t = 0; t < graph.tensors.size(); ++t) {
    if (graph.tensors[t].constant) continue;
    Lifetime life{t, 0, 0};
    for (size_t n = 0; n < graph.nodes.size(); ++n) {
      const Node& node = graph.nodes[n];
      if (node.outputs[0] == static_cast<int32_t>(t)) life.first = life.last = n + 1;
      for (const int32_t input : node.inputs) {
        if (input == static_cast<int32_t>(t)) life.last = n + 1;
      }
    }
    for (const int32_t output : graph.outputs) {
      if (output == static_cast<int32_t>(t)) life.last = graph.nodes.size() + 1;
    }
    result.push_back(life);
  }
  return result;
}

size_t check_no_overlap(const Graph& graph, const std::vector<Shape>& shapes, bool keep_all) {
  const MemoryPlan plan = plan_memory(graph, shapes, keep_all);
  const std::vector<Lifetime> lives = lifetimes(graph);
  for (const Lifetime& a : lives) {
    const size_t end = plan.offsets[a.tensor] + shapes[a.tensor].elements() * 4 + kSlack;
    CHECK(plan.offsets[a.tensor] % kAlignment == 0);
    CHECK(end <= plan.arena_bytes);
    for (const Lifetime& b : lives) {
      const bool together = keep_all || (a.first <= b.last && b.first <= a.last);
      if (a.tensor != b.tensor && together && plan.offsets[a.tensor] <= plan.offsets[b.tensor]) {
        CHECK(end <= plan.offsets[b.tensor]);
      }
    }
  }
  return plan.arena_bytes;
}

void test_random_graphs() {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    GraphBuilder b;
    std::vector<int32_t> values{b.input({1, 8, 8, 4})};
    for (int i = 0; i < 20; ++i) {
      const int32_t x = values[random() % values.size()], y = values[random() % values.size()];
      values.push_back(b.node(Op::k_add, {x, y}, b.value(DType::kF32), {}, {-1e30f, 1e30f}));
    }
    b.finish(values.back());
    std::vector<Shape> shapes;
    CHECK(infer_shapes(b.graph(), {Shape{4, {1, 8, 8, 4}}}, &shapes).ok());
    const size_t shared = check_no_overlap(b.graph(), shapes, false);
    CHECK(check_no_overlap(b.graph(), shapes, true) >= shared);
  }
}

void test_chain_needs_two_buffers() {
  GraphBuilder b;
  int32_t x = b.input({1, 16, 16, 8});
  for (int i = 0; i < 10; ++i) x = b.node(Op::k_tanh, {x}, b.value(DType::kF32));
  b.finish(x);
  std::vector<Shape> shapes;
  CHECK(infer_shapes(b.graph(), {Shape{4, {1, 16, 16, 8}}}, &shapes).ok());
  CHECK(plan_memory(b.graph(), shapes, false).arena_bytes == 2 * (16 * 16 * 8 * 4 + kSlack));
}

void test_reshape_is_free() {
  GraphBuilder b;
  const int32_t x = b.input({2, 12});
  const int32_t y = b.node(Op::k_reshape, {x}, b.value(DType::kF32), {0, 3, 4});
  b.finish(y);
  std::vector<Shape> shapes;
  CHECK(infer_shapes(b.graph(), {Shape{2, {2, 12}}}, &shapes).ok());
  const MemoryPlan plan = plan_memory(b.graph(), shapes, false);
  CHECK(plan.offsets[static_cast<size_t>(x)] == plan.offsets[static_cast<size_t>(y)]);
  CHECK(plan.arena_bytes == 2 * kAlignment + kSlack);
}

}  // namespace
}  // namespace pyedge

int main() {
  pyedge::test_random_graphs();
  pyedge::test_chain_needs_two_buffers();
  pyedge::test_reshape_is_free();
}
