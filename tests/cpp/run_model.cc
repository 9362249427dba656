// run_model MODEL RUNS INPUT OUTPUT: runs a network with one thread, RUNS times. INPUT and OUTPUT
// are files of float32: of the network's one input, whose free dimensions are taken as 1, and of
// its first output. Says which kernels ran.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <vector>

#include "check.h"
#include "runtime/session.h"

namespace pyedge {
namespace {

void require(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

void run(const char* model_path, int runs, const char* input_path, const char* output_path) {
  auto model = std::make_shared<LoadedModel>();
  require(read_model_file(model_path, &model->model));
  const Graph& graph = model->model->graph;
  CHECK(graph.inputs.size() == 1);
  Shape shape = graph.tensors[static_cast<size_t>(graph.inputs[0])].shape;
  for (int axis = 0; axis < shape.rank; ++axis) {
    if (shape[axis] == kAnyDim) shape[axis] = 1;
  }
  std::vector<float> input(shape.elements());
  const auto input_bytes = static_cast<std::streamsize>(input.size() * sizeof(float));
  std::ifstream file(input_path, std::ios::binary);
  CHECK(file.read(reinterpret_cast<char*>(input.data()), input_bytes) && file.get() == EOF);

  std::unique_ptr<Session> session;
  require(Session::create(model, {}, &session));
  Session::Plan* plan = nullptr;
  require(session->plan({shape}, &plan));
  std::vector<std::vector<float>> outputs;
  std::vector<float*> pointers;
  for (const int32_t index : graph.outputs) {
    outputs.emplace_back(plan->shapes[static_cast<size_t>(index)].elements());
    pointers.push_back(outputs.back().data());
  }
  const float* const inputs[] = {input.data()};
  for (int i = 0; i < runs; ++i) {
    session->run(*plan, inputs, pointers.data());
    static_cast<void>(getppid());  // marks the end of a run for the plugin that counts instructions
  }

  const auto output_bytes = static_cast<std::streamsize>(outputs[0].size() * sizeof(float));
  std::ofstream out(output_path, std::ios::binary);
  CHECK(out.write(reinterpret_cast<const char*>(outputs[0].data()), output_bytes));
  for (const Session::Step& step : plan->steps) {
    if (step.kernel) std::printf("%s %s\n", step.kernel->name, graph.nodes[step.node].name.c_str());
  }
}

}  // namespace
}  // namespace pyedge

int main(int argc, char** argv) {
  CHECK(argc == 5);
  pyedge::run(argv[1], std::atoi(argv[2]), argv[3], argv[4]);
  return 0;
}
