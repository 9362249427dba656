#include "runtime/session.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/affinity.h"
#include "graph/shapes.h"
#include "runtime/batch.h"
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
  PoolOptions pool;
  pool.threads = options.threads;
  if (options.affinity != Affinity::kAll || options.threads > 1) {
    CpuChoice choice =
        choose_cpus(read_topology("/sys/devices/system/cpu"), allowed_cpus(), options.affinity);
    pool.unequal = choice.unequal;
    if (options.affinity != Affinity::kAll) pool.cpus = std::move(choice.cpus);
  }
  session->reset(new Session(std::move(model), options, isa, pool));
  return {};
}

Status Session::make_step(size_t index, const std::vector<Shape>& shapes,
                          PreparedCache::Access* constants, Step* step) {
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
  Status suits_status;
  step->kernel = select_kernel(args, isa_, cpu_features(), [&](const Kernel& kernel) {
    bool result = false;
    if (suits_status.ok()) suits_status = constants->suits(index, kernel, args, &result);
    return result;
  });
  PYEDGE_RETURN_IF_ERROR(suits_status);
  if (step->kernel == nullptr) {
    return {StatusCode::kUnsupported, "node " + node.name + " (" +
                                          find_op(static_cast<uint32_t>(node.op))->name +
                                          "): no kernel takes these shapes and dtypes"};
  }
  step->tasks = step->kernel->tasks(args);
  return constants->prepare(index, *step->kernel, args, &step->prepared);
}

Status Session::make_plan(const std::vector<Shape>& input_shapes, Plan* plan) {
  const Graph& g = graph();
  plan->input_shapes = input_shapes;
  PYEDGE_RETURN_IF_ERROR(infer_shapes(g, input_shapes, &plan->shapes));
  const size_t threads = static_cast<size_t>(pool_.threads());
  const size_t pieces = batch_pieces(static_cast<size_t>(input_shapes[0][0]), threads);
  if (pieces > 1 && !options_.keep_activations && images_are_independent(g, input_shapes)) {
    plan->pieces = pieces;
  }
  std::vector<Shape> shapes;
  PYEDGE_RETURN_IF_ERROR(infer_shapes(g, piece_shapes(input_shapes, plan->pieces), &shapes));
  plan->steps.resize(g.nodes.size());
  std::vector<uint32_t> in_place(g.nodes.size(), 0);
  PreparedCache::Access constants(&model_->prepared, *model_->model);
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    Step& step = plan->steps[i];
    PYEDGE_RETURN_IF_ERROR(make_step(i, shapes, &constants, &step));
    if (step.kernel == nullptr) continue;
    in_place[i] = step.kernel->in_place;
    if (step.kernel->scratch_bytes != nullptr) {
      plan->scratch_bytes =
          std::max(plan->scratch_bytes, align_up(step.kernel->scratch_bytes(step.args)));
    }
  }
  constants.save();
  plan->memory = plan_memory(g, shapes, in_place, options_.keep_activations);
  const size_t arena_bytes = plan->memory.arena_bytes * (plan->pieces > 1 ? threads : 1);
  if (arena_bytes > options_.max_arena_bytes) {
    return {StatusCode::kOutOfMemory, "activations of this input need " +
                                          std::to_string(arena_bytes) + " bytes, the limit is " +
                                          std::to_string(options_.max_arena_bytes)};
  }
  return {};
}

Status Session::bind(Plan* plan) {
  const size_t threads = static_cast<size_t>(pool_.threads());
  const size_t arenas = plan->memory.arena_bytes * (plan->pieces > 1 ? threads : 1);
  const size_t scratch = plan->scratch_bytes * threads;
  if ((arenas > arena_.size() && !arena_.allocate(arenas)) ||
      (scratch > scratch_.size() && !scratch_.allocate(scratch))) {
    return {StatusCode::kOutOfMemory,
            "no memory for activations of " + std::to_string(arenas + scratch) + " bytes"};
  }
  if (plan->bound_to == arena_.data()) return {};
  bind_steps(*plan, 0, &plan->steps);
  plan->other_steps.assign(plan->pieces > 1 ? threads - 1 : 0, plan->steps);
  for (size_t i = 0; i < plan->other_steps.size(); ++i) {
    bind_steps(*plan, i + 1, &plan->other_steps[i]);
  }
  plan->bound_to = arena_.data();
  return {};
}

void Session::bind_steps(const Plan& plan, size_t arena, std::vector<Step>* steps) const {
  const uint8_t* base = arena_.data() + arena * plan.memory.arena_bytes;
  for (Step& step : *steps) {
    const Node& node = graph().nodes[step.node];
    step.args.inputs = step.views.data();
    step.args.outputs = step.views.data() + node.inputs.size();
    for (size_t i = 0; i < step.views.size(); ++i) {
      const int32_t tensor =
          i < node.inputs.size() ? node.inputs[i] : node.outputs[i - node.inputs.size()];
      if (tensor == kAbsent || graph().tensors[static_cast<size_t>(tensor)].constant) continue;
      step.views[i].data =
          const_cast<uint8_t*>(base + plan.memory.offsets[static_cast<size_t>(tensor)]);
    }
  }
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

struct Session::Call {
  Session* session;
  const Plan& plan;
  const float* const* inputs;
  float* const* outputs;
  double* step_seconds;
};

void Session::run(const Plan& plan, const float* const* inputs, float* const* outputs,
                  double* step_seconds) {
  const ScopedCpus cpus(cpus_);
  const ScopedCaller caller(&thread_budget());
  if (step_seconds) std::fill_n(step_seconds, plan.steps.size(), 0.0);
  Call call{this, plan, inputs, outputs, step_seconds};
  if (plan.pieces == 1) {
    run_piece(call, 0, 0, pool_.threads() == 1);
    return;
  }
  pool_.run(
      plan.pieces,
      [](void* context, int thread, size_t begin, size_t end) {
        const Call& c = *static_cast<const Call*>(context);
        for (size_t piece = begin; piece < end; ++piece) {
          c.session->run_piece(c, static_cast<size_t>(thread), piece, true);
        }
      },
      &call);
}

// `alone`: the thread runs the steps by itself.
void Session::run_piece(const Call& call, size_t thread, size_t piece, bool alone) {
  const Graph& g = graph();
  const Plan& plan = call.plan;
  uint8_t* const arena = arena_.data() + thread * plan.memory.arena_bytes;
  uint8_t* const scratch = scratch_.data() + thread * plan.scratch_bytes;
  const auto elements = [&](size_t t) { return plan.shapes[t].elements() / plan.pieces; };
  for (size_t i = 0; i < g.inputs.size(); ++i) {
    const auto t = static_cast<size_t>(g.inputs[i]);
    std::memcpy(arena + plan.memory.offsets[t], call.inputs[i] + piece * elements(t),
                elements(t) * sizeof(float));
  }
  using Clock = std::chrono::steady_clock;
  double* const seconds = thread == 0 ? call.step_seconds : nullptr;
  const std::vector<Step>& steps = thread == 0 ? plan.steps : plan.other_steps[thread - 1];
  for (size_t i = 0; i < steps.size(); ++i) {
    const Step& step = steps[i];
    if (step.kernel == nullptr) continue;
    const bool trying = !alone && step.sharing.trying();
    const bool timed = trying || seconds != nullptr;
    const Clock::time_point start = timed ? Clock::now() : Clock::time_point{};
    const Launch one{step.kernel, &step.args, step.prepared, scratch, plan.scratch_bytes};
    if (alone || step.sharing.alone()) {
      launch_alone(one, step.tasks);
    } else {
      launch(&pool_, one, step.tasks);
    }
    if (!timed) continue;
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    if (trying) step.sharing.note(took);
    if (seconds) seconds[i] += took;
  }
  for (size_t i = 0; i < g.outputs.size(); ++i) {
    const auto t = static_cast<size_t>(g.outputs[i]);
    std::memcpy(call.outputs[i] + piece * elements(t), arena + plan.memory.offsets[t],
                elements(t) * sizeof(float));
  }
}

}  // namespace pyedge
