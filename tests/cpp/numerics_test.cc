// The numerics promise on small INT8 networks: the same bytes from every instruction set, thread
// count and batch.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "graph/validate.h"
#include "graphs.h"

namespace pyedge {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int32_t kFeatures = 5;

struct Block {
  int32_t in_c, out_c, kernel, stride, groups;
  bool slope;
};

std::vector<float> uniform(GraphBuilder* b, int32_t count, float least, float greatest) {
  std::vector<float> values = b->normal(count);
  for (float& v : values) v = least + (greatest - least) * (0.5f + 0.5f * std::tanh(v));
  return values;
}

int32_t int8_conv(GraphBuilder* b, const Block& block, int32_t x, int32_t residual, Quant out) {
  std::vector<int8_t> weights;
  const int32_t in_c = block.in_c / block.groups;
  for (const float v : b->normal(block.out_c * block.kernel * block.kernel * in_c)) {
    weights.push_back(static_cast<int8_t>(std::fmax(-127.0f, std::fmin(127.0f, 60.0f * v))));
  }
  const int32_t weight = b->constant({block.out_c, block.kernel, block.kernel, in_c}, weights);
  const int32_t bias = b->constant({block.out_c}, uniform(b, block.out_c, -1.0f, 1.0f));
  const int32_t scale = b->constant({block.out_c}, uniform(b, block.out_c, 1e-3f, 4e-3f));
  const int32_t slope =
      block.slope ? b->constant({block.out_c}, uniform(b, block.out_c, -0.1f, 0.4f)) : kAbsent;
  const int32_t pad = block.kernel / 2;
  return b->node(Op::k_conv, {x, weight, bias, scale, slope, residual}, b->value(DType::kI8, out),
                 {block.stride, block.stride, 1, 1, pad, pad, pad, pad, block.groups},
                 {out.zero_point == 0 ? -kInfinity : 0.0f, kInfinity});
}

// quantize, two convolutions with a residual around the second, dequantize, pool, connect.
std::shared_ptr<LoadedModel> int8_network(const Block& block) {
  GraphBuilder b;
  int32_t x = b.input({kAnyDim, kAnyDim, kAnyDim, block.in_c});
  x = b.node(Op::k_quantize, {x}, b.value(DType::kI8, {0.02f, 0}));
  const int32_t first = int8_conv(&b, block, x, kAbsent, {0.05f, 0});
  Block second = block;
  second.in_c = block.out_c, second.stride = 1;
  x = int8_conv(&b, second, first, first, {0.05f, -128});
  x = b.node(Op::k_dequantize, {x}, b.value(DType::kF32));
  x = b.node(Op::k_average_pool, {x}, b.value(DType::kF32), {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  x = b.node(Op::k_reshape, {x}, b.value(DType::kF32), {0, -1});
  const int32_t weight =
      b.constant({kFeatures, block.out_c}, uniform(&b, kFeatures * block.out_c, -0.5f, 0.5f));
  x = b.node(Op::k_fully_connected, {x, weight}, b.value(DType::kF32), {}, {-kInfinity, kInfinity});
  std::shared_ptr<LoadedModel> model = b.finish(x);
  const Status status = validate(model->model->graph);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  CHECK(status.ok());
  return model;
}

std::vector<float> run(const std::shared_ptr<LoadedModel>& model, const std::string& isa,
                       int threads, int32_t batch, const std::vector<float>& images, int32_t side) {
  SessionOptions options;
  options.isa = isa, options.threads = threads;
  std::unique_ptr<Session> session;
  CHECK(Session::create(model, options, &session).ok());
  Shape shape = model->model->graph.tensors[0].shape;
  shape[0] = batch, shape[1] = shape[2] = side;
  Session::Plan* plan = nullptr;
  const Status status = session->plan({shape}, &plan);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  CHECK(status.ok());
  std::vector<float> result;
  for (size_t first = 0; first < images.size(); first += shape.elements()) {
    std::vector<float> output(static_cast<size_t>(batch * kFeatures));
    const float* in = images.data() + first;
    float* out = output.data();
    session->run(*plan, &in, &out);
    result.insert(result.end(), output.begin(), output.end());
  }
  return result;
}

void test_same_bytes(const Block& block, int32_t side) {
  const std::shared_ptr<LoadedModel> model = int8_network(block);
  GraphBuilder random;
  const std::vector<float> images = random.normal(4 * side * side * block.in_c);
  const std::vector<float> expected = run(model, "reference", 1, 1, images, side);
  for (const float value : expected) CHECK(std::isfinite(value));
  for (const IsaInfo& isa : isa_table()) {
    if (!runs_on(isa.isa, cpu_features())) {
      std::printf("skipped: %s, which this CPU lacks\n", isa.name);
      continue;
    }
    for (const int threads : {1, 2, 3, 4}) {
      for (const int32_t batch : {1, 2, 4}) {
        const std::vector<float> actual = run(model, isa.name, threads, batch, images, side);
        CHECK(actual.size() == expected.size());
        CHECK(std::memcmp(actual.data(), expected.data(), expected.size() * sizeof(float)) == 0);
      }
    }
  }
}

}  // namespace
}  // namespace pyedge

// Channel counts leave a rest in every vector width.
int main() {
  pyedge::thread_budget().set_limit(4);  // however few CPUs there are
  using pyedge::test_same_bytes;
  test_same_bytes({3, 16, 3, 2, 1, true}, 9);
  test_same_bytes({16, 32, 1, 1, 1, true}, 7);
  test_same_bytes({13, 29, 3, 1, 1, false}, 8);
  test_same_bytes({24, 24, 3, 2, 24, true}, 11);
  test_same_bytes({71, 71, 3, 1, 71, false}, 5);
  test_same_bytes({8, 12, 3, 1, 4, true}, 6);
  test_same_bytes({64, 130, 5, 2, 1, false}, 6);
  return 0;
}
