// Tensors that live at the same time never share memory, unless one is made in place of the other;
// others do.
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

// Whether `b` may lie where `a` does though both live at the node that makes b of a.
bool replaces(const Graph& graph, const std::vector<Shape>& shapes, uint32_t in_place,
              const Lifetime& a, const Lifetime& b) {
  if (b.first == 0 || a.last != b.first || shapes[a.tensor] != shapes[b.tensor]) return false;
  const Node& node = graph.nodes[b.first - 1];
  bool reads = false;
  for (size_t slot = 0; slot < node.inputs.size(); ++slot) {
    if (node.inputs[slot] != static_cast<int32_t>(a.tensor)) continue;
    if (!(in_place >> slot & 1)) return false;
    reads = true;
  }
  return reads;
}

size_t check_no_overlap(const Graph& graph, const std::vector<Shape>& shapes, uint32_t in_place,
                        bool keep_all) {
  const std::vector<uint32_t> masks(graph.nodes.size(), in_place);
  const MemoryPlan plan = plan_memory(graph, shapes, masks, keep_all);
  const std::vector<Lifetime> lives = lifetimes(graph);
  for (const Lifetime& a : lives) {
    const size_t end = plan.offsets[a.tensor] + shapes[a.tensor].elements() * 4 + kSlack;
    CHECK(plan.offsets[a.tensor] % kAlignment == 0);
    CHECK(end <= plan.arena_bytes);
    for (const Lifetime& b : lives) {
      const bool together = keep_all || (a.first <= b.last && b.first <= a.last);
      if (a.tensor == b.tensor || !together || plan.offsets[a.tensor] > plan.offsets[b.tensor]) {
        continue;
      }
      const bool shared =
          !keep_all && plan.offsets[a.tensor] == plan.offsets[b.tensor] &&
          (replaces(graph, shapes, in_place, a, b) || replaces(graph, shapes, in_place, b, a));
      CHECK(shared || end <= plan.offsets[b.tensor]);
    }
  }
  return plan.arena_bytes;
}

void test_random_graphs() {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    GraphBuilder b;
    std::vector<int32_t> values{b.input({1, 8, 8, 4}), b.input({1, 1, 1, 4})};
    for (int i = 0; i < 20; ++i) {
      const int32_t x = values[random() % values.size()], y = values[random() % values.size()];
      values.push_back(b.node(Op::k_add, {x, y}, b.value(DType::kF32), {}, {-1e30f, 1e30f}));
    }
    b.finish(values.back());
    std::vector<Shape> shapes;
    CHECK(infer_shapes(b.graph(), {Shape{4, {1, 8, 8, 4}}, Shape{4, {1, 1, 1, 4}}}, &shapes).ok());
    const size_t apart = check_no_overlap(b.graph(), shapes, 0, false);
    CHECK(check_no_overlap(b.graph(), shapes, 0, true) >= apart);
    for (const uint32_t in_place : {1u, 2u, 3u}) {
      check_no_overlap(b.graph(), shapes, in_place, false);
      check_no_overlap(b.graph(), shapes, in_place, true);
    }
  }
}

size_t offset(const MemoryPlan& plan, int32_t tensor) {
  return plan.offsets[static_cast<size_t>(tensor)];
}

void test_in_place_only_where_legal() {
  GraphBuilder b;
  const std::vector<float> bounds{-1e30f, 1e30f};
  const auto f32 = [&] { return b.value(DType::kF32); };
  const int32_t x = b.input({4, 8});
  const int32_t dies = b.node(Op::k_tanh, {x}, f32());                     // x is needed later
  const int32_t flat = b.node(Op::k_reshape, {dies}, f32(), {8, 4});       // no bytes of its own
  const int32_t sum = b.node(Op::k_add, {x, dies}, f32(), {}, bounds);     // flat is needed later
  const int32_t twice = b.node(Op::k_mul, {sum, sum}, f32(), {}, bounds);  // both slots, one tensor
  const int32_t row = b.node(Op::k_slice, {twice}, f32(), {0, 0, 1, 1});   // smaller
  const int32_t wide =
      b.node(Op::k_add, {row, twice}, f32(), {}, bounds);  // the second is as large
  const int32_t last = b.node(Op::k_tanh, {flat}, f32());
  b.finish(wide);
  b.graph().outputs.push_back(last);
  std::vector<Shape> shapes;
  CHECK(infer_shapes(b.graph(), {Shape{2, {4, 8}}}, &shapes).ok());
  const std::vector<uint32_t> all{1, 0, 3, 3, 0, 3, 1}, none(7, 0);
  MemoryPlan plan = plan_memory(b.graph(), shapes, all, false);
  CHECK(offset(plan, dies) != offset(plan, x));
  CHECK(offset(plan, flat) == offset(plan, dies));
  CHECK(offset(plan, sum) == offset(plan, x));
  CHECK(offset(plan, twice) == offset(plan, sum));
  CHECK(offset(plan, row) != offset(plan, twice));
  CHECK(offset(plan, wide) == offset(plan, twice));
  CHECK(offset(plan, last) == offset(plan, flat));
  // A kernel that takes only one of two slots does not get a tensor that is in both.
  plan = plan_memory(b.graph(), shapes, {0, 0, 0, 1, 0, 0, 0}, false);
  CHECK(offset(plan, twice) != offset(plan, sum));
  CHECK(offset(plan_memory(b.graph(), shapes, none, false), twice) != offset(plan, sum));
}

void test_chain_needs_two_buffers_or_one() {
  GraphBuilder b;
  int32_t x = b.input({1, 16, 16, 8});
  for (int i = 0; i < 10; ++i) x = b.node(Op::k_tanh, {x}, b.value(DType::kF32));
  b.finish(x);
  std::vector<Shape> shapes;
  CHECK(infer_shapes(b.graph(), {Shape{4, {1, 16, 16, 8}}}, &shapes).ok());
  const size_t bytes = 16 * 16 * 8 * 4 + kSlack;
  const auto arena_bytes = [&](uint32_t in_place) {
    return plan_memory(b.graph(), shapes, std::vector<uint32_t>(10, in_place), false).arena_bytes;
  };
  CHECK(arena_bytes(0) == 2 * bytes);
  CHECK(arena_bytes(1) == bytes);
}

void test_reshape_is_free() {
  GraphBuilder b;
  const int32_t x = b.input({2, 12});
  const int32_t y = b.node(Op::k_reshape, {x}, b.value(DType::kF32), {0, 3, 4});
  b.finish(y);
  std::vector<Shape> shapes;
  CHECK(infer_shapes(b.graph(), {Shape{2, {2, 12}}}, &shapes).ok());
  const MemoryPlan plan = plan_memory(b.graph(), shapes, {0}, false);
  CHECK(plan.offsets[static_cast<size_t>(x)] == plan.offsets[static_cast<size_t>(y)]);
  CHECK(plan.arena_bytes == 2 * kAlignment + kSlack);
}

}  // namespace
}  // namespace pyedge

int main() {
  pyedge::test_random_graphs();
  pyedge::test_chain_needs_two_buffers_or_one();
  pyedge::test_in_place_only_where_legal();
  pyedge::test_reshape_is_free();
}
