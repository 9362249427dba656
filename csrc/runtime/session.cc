#include "runtime/session.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "graph/shapes.h"
#include "runtime/launch.h"

namespace pyedge {
namespace {

constexpr int kMaxThreads = 256;
constexpr size_t kMaxPlans = 16;

}  // namespace

Status Session::create(std::shared_ptr<LoadedModel> model, const SessionOptions& options,
                       std::unique_ptr<Session>* session) {
  if (options.threads < 1 || options.threads > kMaxThreads) {
    return invalid_argument("threads: " + std::to_string(options.threads) + ", must lie in 1.." +
                            std::to_string(kMaxThreads));
  }
  Isa isa;
  PYEDGE_RETURN_IF_ERROR(choose_isa(options.isa, cpu_features(), &isa));
  session->reset(new Session(std::move(model), options, isa));
  return {};
}

Status Session::make_step(size_t index, const std::vector<Shape>& shapes, Step* step) {
  const Node& node = graph().nodes[index];
  step->node = index;
  const auto add_view = [&](int32_t tensor_index) {
    TensorView view;
    if (tensor_index != kAbsent) {
      const Tensor& t = graph().tensors[static_cast<size_t>(tensor_index)];
      view.present = true;
      view.dtype = t.dtype;
      view.shape = shapes[static_cast<size_t>(tensor_index)];
      view.quant = t.quant;
      view.data = const_cast<uint8_t*>(t.data);  // kernels do not write to inputs
    }
    step->views.push_back(view);
  };
  for (const int32_t i : node.inputs) add_view(i);
  for (const int32_t i : node.outputs) add_view(i);
  OpArgs& args = step->args;
  args.op = node.op;
  args.ints = node.ints.data(), args.int_count = static_cast<int>(node.ints.size());
  args.floats = node.floats.data(), args.float_count = static_cast<int>(node.floats.size());
  args.inputs = step->views.data(), args.input_count = static_cast<int>(node.inputs.size());
  args.outputs = step->views.data() + node.inputs.size();
  args.output_count = static_cast<int>(node.outputs.size());
  if (node.op == Op::k_reshape) return {};
  step->kernel = select_kernel(args, isa_, cpu_features());
  if (step->kernel == nullptr) {
    return {StatusCode::kUnsupported, "node " + node.name + " (" +
                                          find_op(static_cast<uint32_t>(node.op))->name +
                                          "): no kernel takes these shapes and dtypes"};
  }
  step->tasks = step->kernel->tasks(args);
  return model_->prepared.get(index, *step->kernel, args, &step->prepared);
}

Status Session::make_plan(const std::vector<Shape>& input_shapes, Plan* plan) {
  const Graph& g = graph();
  plan->input_shapes = input_shapes;
  PYEDGE_RETURN_IF_ERROR(infer_shapes(g, input_shapes, &plan->shapes));
  plan->memory = plan_memory(g, plan->shapes, options_.keep_activations);
  if (plan->memory.arena_bytes > options_.max_arena_bytes) {
    return {StatusCode::kOutOfMemory,
            "activations of this input need " + std::to_string(plan->memory.arena_bytes) +
                " bytes, the limit is " + std::to_string(options_.max_arena_bytes)};
  }
  plan->steps.resize(g.nodes.size());
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    Step& step = plan->steps[i];
    PYEDGE_RETURN_IF_ERROR(make_step(i, plan->shapes, &step));
    if (step.kernel != nullptr && step.kernel->scratch_bytes != nullptr) {
      plan->scratch_bytes =
          std::max(plan->scratch_bytes, align_up(step.kernel->scratch_bytes(step.args)));
    }
  }
  return {};
}

Status Session::bind(Plan* plan) {
  const size_t scratch = plan->scratch_bytes * static_cast<size_t>(pool_.threads());
  if ((plan->memory.arena_bytes > arena_.size() && !arena_.allocate(plan->memory.arena_bytes)) ||
      (scratch > scratch_.size() && !scratch_.allocate(scratch))) {
    return {StatusCode::kOutOfMemory, "no memory for activations of " +
                                          std::to_string(plan->memory.arena_bytes + scratch) +
                                          " bytes"};
  }
  if (plan->bound_to == arena_.data()) return {};
  for (Step& step : plan->steps) {
    const Node& node = graph().nodes[step.node];
    for (size_t i = 0; i < step.views.size(); ++i) {
      const int32_t tensor =
          i < node.inputs.size() ? node.inputs[i] : node.outputs[i - node.inputs.size()];
      if (tensor == kAbsent || graph().tensors[static_cast<size_t>(tensor)].constant) continue;
      step.views[i].data = arena_.data() + plan->memory.offsets[static_cast<size_t>(tensor)];
    }
  }
  plan->bound_to = arena_.data();
  return {};
}

Status Session::plan(const std::vector<Shape>& input_shapes, Plan** plan) {
  auto found = std::find_if(plans_.begin(), plans_.end(),
                            [&](const Plan& p) { return p.input_shapes == input_shapes; });
  if (found == plans_.end()) {
    Plan made;
    PYEDGE_RETURN_IF_ERROR(make_plan(input_shapes, &made));
    if (plans_.size() == kMaxPlans) plans_.pop_back();
    plans_.push_front(std::move(made));
  } else {
    plans_.splice(plans_.begin(), plans_, found);
  }
  *plan = &plans_.front();
  return bind(*plan);
}

void Session::run(const Plan& plan, const float* const* inputs, float* const* outputs,
                  double* step_seconds) {
  const Graph& g = graph();
  const auto tensor_bytes = [&](size_t t) { return plan.shapes[t].elements() * sizeof(float); };
  for (size_t i = 0; i < g.inputs.size(); ++i) {
    const auto t = static_cast<size_t>(g.inputs[i]);
    std::memcpy(arena_.data() + plan.memory.offsets[t], inputs[i], tensor_bytes(t));
  }
  using Clock = std::chrono::steady_clock;
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& step = plan.steps[i];
    const Clock::time_point start = step_seconds ? Clock::now() : Clock::time_point{};
    if (step.kernel != nullptr) {
      launch(&pool_, {step.kernel, &step.args, step.prepared, scratch_.data(), plan.scratch_bytes},
             step.tasks);
    }
    if (step_seconds) step_seconds[i] = std::chrono::duration<double>(Clock::now() - start).count();
  }
  for (size_t i = 0; i < g.outputs.size(); ++i) {
    const auto t = static_cast<size_t>(g.outputs[i]);
    std::memcpy(outputs[i], arena_.data() + plan.memory.offsets[t], tensor_bytes(t));
  }
}

}  // namespace pyedge
