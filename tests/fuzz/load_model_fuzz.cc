// The loader against any bytes: it refuses them, or gives a model that plans and runs, with the
// same result on every instruction set. The digest is not asked for, or nothing behind it would
// ever be reached.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "graph/shapes.h"
#include "runtime/session.h"

namespace pyedge {
namespace {

constexpr double kMaxWork = 1 << 21;  // elements written, or products, before an input is skipped

// Sizes that a graph input leaves open: two images of 8 x 8.
std::vector<Shape> input_shapes(const Graph& graph) {
  std::vector<Shape> shapes;
  for (const int32_t index : graph.inputs) {
    Shape shape = graph.tensors[static_cast<size_t>(index)].shape;
    for (int axis = 0; axis < shape.rank; ++axis) {
      if (shape[axis] == kAnyDim) shape[axis] = axis == 0 ? 2 : 8;
    }
    shapes.push_back(shape);
  }
  return shapes;
}

// What a run costs at most, so that the fuzzer spends its time on other things than inference.
double work(const Graph& graph, const std::vector<Shape>& shapes) {
  double total = 0.0;
  for (const Shape& shape : shapes) total += static_cast<double>(shape.elements());
  for (const Node& node : graph.nodes) {
    total += count_macs(node, shapes);
    if (node.op == Op::k_max_pool || node.op == Op::k_average_pool) {
      const Shape& out = shapes[static_cast<size_t>(node.outputs[0])];
      total += static_cast<double>(out.elements()) * node.ints[1] * node.ints[2];
    }
  }
  return total;
}

std::vector<std::vector<float>> buffers(const std::vector<int32_t>& tensors,
                                        const std::vector<Shape>& shapes) {
  std::vector<std::vector<float>> result;
  for (const int32_t index : tensors) {
    std::vector<float> values(shapes[static_cast<size_t>(index)].elements());
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(i * 37 % 101) / 50.0f - 1.0f;
    }
    result.push_back(std::move(values));
  }
  return result;
}

using Outputs = std::vector<std::vector<float>>;

// Empty where the model does not plan.
Outputs run(const std::shared_ptr<LoadedModel>& model, const char* isa) {
  const Graph& graph = model->model->graph;
  SessionOptions options;
  options.isa = isa;
  options.max_arena_bytes = size_t{64} << 20;
  std::unique_ptr<Session> session;
  if (!Session::create(model, options, &session).ok()) return {};
  Session::Plan* plan = nullptr;
  if (!session->plan(input_shapes(graph), &plan).ok()) return {};
  const Outputs inputs = buffers(graph.inputs, plan->shapes);
  Outputs outputs = buffers(graph.outputs, plan->shapes);
  std::vector<const float*> in;
  std::vector<float*> out;
  for (const std::vector<float>& values : inputs) in.push_back(values.data());
  for (std::vector<float>& values : outputs) out.push_back(values.data());
  session->run(*plan, in.data(), out.data());
  return outputs;
}

bool same(const Outputs& a, const Outputs& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].size() != b[i].size()) return false;
    for (size_t k = 0; k < a[i].size(); ++k) {
      const bool both_nan = std::isnan(a[i][k]) && std::isnan(b[i][k]);
      if (!both_nan && std::memcmp(&a[i][k], &b[i][k], sizeof(float)) != 0) return false;
    }
  }
  return true;
}

}  // namespace
}  // namespace pyedge

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  using namespace pyedge;
  ReadOptions options;
  options.verify_digest = false;
  std::shared_ptr<const Model> model;
  if (!read_model(data, bytes, options, &model).ok()) return 0;
  std::vector<Shape> shapes;
  if (!infer_shapes(model->graph, input_shapes(model->graph), &shapes).ok()) return 0;
  if (!(work(model->graph, shapes) <= kMaxWork)) return 0;
  const auto loaded = std::make_shared<LoadedModel>();
  loaded->model = model;
  const Outputs expected = run(loaded, "reference");
  for (const IsaInfo& isa : isa_table()) {
    if (runs_on(isa.isa, cpu_features()) && !same(run(loaded, isa.name), expected)) std::abort();
  }
  return 0;
}
