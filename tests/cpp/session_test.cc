// A planned shape runs without allocating, on any number of threads, to the same bytes.
#include "runtime/session.h"

#include <atomic>
#include <cstdlib>
#include <new>

#include "check.h"
#include "graph/validate.h"
#include "graphs.h"

namespace {
std::atomic<int> allocations{0};
}

// Counts every allocation of the program; those that do not go through new are counted by the
// linker's --wrap. Not inlined, or g++ takes the free() inside for a mismatch with new.
[[gnu::noinline]] void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(bytes ? bytes : 1);
}
[[gnu::noinline]] void* operator new(size_t bytes) {
  void* memory = operator new(bytes, std::nothrow);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

extern "C" void* __real_malloc(size_t bytes);
extern "C" void* __wrap_malloc(size_t bytes) {
  ++allocations;
  return __real_malloc(bytes);
}
extern "C" void* __real_aligned_alloc(size_t alignment, size_t bytes);
extern "C" void* __wrap_aligned_alloc(size_t alignment, size_t bytes) {
  ++allocations;
  return __real_aligned_alloc(alignment, bytes);
}

namespace pyedge {
namespace {

std::shared_ptr<LoadedModel> small_network() {
  GraphBuilder b;
  const int32_t x = b.input({kAnyDim, kAnyDim, kAnyDim, 3});
  const int32_t first = b.conv(x, 3, 17);
  const int32_t second = b.conv(first, 17, 17);
  const int32_t sum = b.node(Op::k_add, {first, second}, b.value(DType::kF32), {}, {-1e30f, 1e30f});
  const Quant quant{0.25f, 0};
  const int32_t q = b.node(Op::k_quantize, {sum}, b.value(DType::kI8, quant));
  const int32_t pooled =
      b.node(Op::k_max_pool, {q}, b.value(DType::kI8, quant), {0, 2, 2, 2, 2, 0, 0, 0, 0, 0});
  const int32_t y = b.node(Op::k_dequantize, {pooled}, b.value(DType::kF32));
  const int32_t flat = b.node(Op::k_reshape, {y}, b.value(DType::kF32), {0, -1});
  std::shared_ptr<LoadedModel> model = b.finish(flat);
  CHECK(validate(model->model->graph).ok());
  return model;
}

std::vector<float> run(Session* session, int32_t side, int32_t batch, int* allocated) {
  Shape shape{4, {batch, side, side, 3}};
  std::vector<float> x(shape.elements());
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7919 % 257) / 128.0f - 1.0f;
  Session::Plan* plan = nullptr;
  CHECK(session->plan({shape}, &plan).ok());
  std::vector<float> y(plan->shapes[static_cast<size_t>(session->graph().outputs[0])].elements());
  const float* in = x.data();
  float* out = y.data();
  session->run(*plan, &in, &out);
  const std::vector<Shape> shapes{shape};
  std::vector<double> seconds(plan->steps.size());
  const int before = allocations;
  CHECK(session->plan(shapes, &plan).ok());
  for (int repeat = 0; repeat < 3; ++repeat) {
    session->run(*plan, &in, &out);
    session->run(*plan, &in, &out, seconds.data());
  }
  *allocated = allocations - before;
  return y;
}

void test_steady_state_and_threads() {
  const std::shared_ptr<LoadedModel> model = small_network();
  std::vector<float> expected, batch_of_eight;
  for (const auto& [isa, affinity] :
       {std::pair{"", Affinity::kAll}, {"", Affinity::kBig}, {"reference", Affinity::kAll}}) {
    for (const int threads : {1, 2, 3, 4}) {
      SessionOptions options;
      options.threads = threads;
      options.isa = isa;
      options.affinity = affinity;
      std::unique_ptr<Session> session;
      CHECK(Session::create(model, options, &session).ok());
      int allocated = 0;
      const std::vector<float> y = run(session.get(), 13, 3, &allocated);
      CHECK(allocated == 0);
      if (expected.empty()) expected = y;
      CHECK(y == expected);
      // A batch for all threads is run in pieces; profiling and results do not change with it.
      const std::vector<float> eight = run(session.get(), 13, 8, &allocated);
      CHECK(allocated == 0);
      if (batch_of_eight.empty()) batch_of_eight = eight;
      CHECK(eight == batch_of_eight);
      // Another shape, larger, moves the arena; the first plan must still be right after it.
      run(session.get(), 21, 2, &allocated);
      CHECK(run(session.get(), 13, 3, &allocated) == expected);
    }
  }
}

void test_errors() {
  const std::shared_ptr<LoadedModel> model = small_network();
  std::unique_ptr<Session> session;
  SessionOptions options;
  options.threads = 0;
  CHECK(Session::create(model, options, &session).code() == StatusCode::kInvalidArgument);
  options.threads = 1, options.isa = "vax";
  CHECK(Session::create(model, options, &session).code() == StatusCode::kInvalidArgument);
  options.isa = "", options.max_arena_bytes = 1000;
  CHECK(Session::create(model, options, &session).ok());
  Session::Plan* plan = nullptr;
  CHECK(session->plan({Shape{4, {1, 64, 64, 3}}}, &plan).code() == StatusCode::kOutOfMemory);
  CHECK(session->plan({Shape{4, {1, 64, 64, 4}}}, &plan).code() == StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace pyedge

int main() {
  pyedge::thread_budget().set_limit(4);  // however few CPUs there are
  pyedge::test_steady_state_and_threads();
  pyedge::test_errors();
}
