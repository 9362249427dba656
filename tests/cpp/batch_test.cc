// Only batches of independent images are cut into pieces, and into as few and as equal ones as give
// each thread one.
#include "runtime/batch.h"

#include "check.h"
#include "graphs.h"

namespace pyedge {
namespace {

void test_pieces() {
  CHECK(batch_pieces(1, 2) == 1);
  CHECK(batch_pieces(3, 4) == 1);
  CHECK(batch_pieces(8, 1) == 1);
  CHECK(batch_pieces(8, 2) == 2);
  CHECK(batch_pieces(8, 3) == 4);
  CHECK(batch_pieces(8, 8) == 8);
  CHECK(batch_pieces(7, 2) == 7);
  CHECK(batch_pieces(15, 4) == 5);
  const std::vector<Shape> pieces = piece_shapes({Shape{2, {8, 3}}, Shape{1, {8}}}, 4);
  CHECK((pieces == std::vector<Shape>{Shape{2, {2, 3}}, Shape{1, {2}}}));
}

// Whether a batch of five goes through one node of this kind by itself.
bool independent(Op op, const std::vector<int32_t>& ints, const std::vector<float>& floats = {}) {
  GraphBuilder b;
  const int32_t x = b.input({kAnyDim, 5});
  const int32_t y = b.node(op, {x}, b.value(DType::kF32), ints, floats);
  b.finish(b.node(Op::k_tanh, {y}, b.value(DType::kF32)));
  return images_are_independent(b.graph(), {Shape{2, {5, 5}}});
}

void test_independence() {
  CHECK(independent(Op::k_tanh, {}));
  CHECK(independent(Op::k_softmax, {1}));
  CHECK(!independent(Op::k_softmax, {0}));
  CHECK(independent(Op::k_l2_normalize, {1}, {1e-6f}));
  CHECK(!independent(Op::k_l2_normalize, {0}, {1e-6f}));
  CHECK(independent(Op::k_slice, {1, 0, 2, 1}));
  CHECK(!independent(Op::k_slice, {0, 0, 5, 1}));
  CHECK(!independent(Op::k_transpose, {1, 0}));
  CHECK(independent(Op::k_reduce_sum, {1, 1}));
  CHECK(!independent(Op::k_reduce_sum, {1, 0}));
  CHECK(independent(Op::k_reshape, {0, 1, 5}));
  CHECK(!independent(Op::k_reshape, {1, -1}));
}

void test_inputs() {
  GraphBuilder b;
  const int32_t x = b.input({kAnyDim, 4}), y = b.input({kAnyDim, 4});
  b.input({3, 4});
  const int32_t sum = b.node(Op::k_add, {x, y}, b.value(DType::kF32), {}, {-1e30f, 1e30f});
  const Shape three{2, {3, 4}}, two{2, {2, 4}};
  b.finish(sum);
  CHECK(!images_are_independent(b.graph(), {three, three, three}));  // the last takes no other
  b.graph().inputs = {x, y};
  CHECK(images_are_independent(b.graph(), {three, three}));
  CHECK(!images_are_independent(b.graph(), {three, two}));
}

}  // namespace
}  // namespace pyedge

int main() {
  pyedge::test_pieces();
  pyedge::test_independence();
  pyedge::test_inputs();
  return 0;
}
