// Runs a model. A session is used by one thread at a time; sessions of one model share its packed
// weights. A plan is made for each input shape and kept; running a planned shape allocates nothing.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/status.h"
#include "base/thread_pool.h"
#include "cpu/cpu.h"
#include "cpu/topology.h"
#include "format/format.h"
#include "kernels/kernel.h"
#include "runtime/planner.h"
#include "runtime/prepared.h"
#include "runtime/sharing.h"

namespace pyedge {

// A model and what is derived from it once.
struct LoadedModel {
  std::shared_ptr<const Model> model;
  PreparedCache prepared;
};

struct SessionOptions {
  int threads = 1;
  Affinity affinity = Affinity::kAll;
  std::string isa;  // empty: the environment variable PYEDGE_ISA, else the best there is
  bool keep_activations = false;  // every tensor stays readable after a run
  size_t max_arena_bytes = size_t{8} << 30;
};

class Session {
 public:
  // A node made ready for one input shape.
  struct Step {
    size_t node;
    const Kernel* kernel;  // null for a reshape, which does nothing
    const void* prepared;
    std::vector<TensorView> views;  // inputs, then outputs
    OpArgs args;
    size_t tasks;
    mutable Sharing sharing;
  };
  struct Plan {
    std::vector<Shape> input_shapes;
    std::vector<Shape> shapes;  // by tensor, of the whole batch
    // With 1 all threads share each step. With more the batch is cut into so many pieces, and each
    // thread runs all the steps of a piece, in an arena of its own.
    size_t pieces = 1;
    MemoryPlan memory;                           // of a piece
    std::vector<Step> steps;                     // on the first arena
    std::vector<std::vector<Step>> other_steps;  // the same on the arenas of the other threads
    size_t scratch_bytes = 0;                    // for each thread
    const uint8_t* bound_to = nullptr;           // the arena that the views point into
  };

  static Status create(std::shared_ptr<LoadedModel> model, const SessionOptions& options,
                       std::unique_ptr<Session>* session);

  const Graph& graph() const { return model_->model->graph; }
  const LoadedModel& model() const { return *model_; }
  Isa isa() const { return isa_; }
  int threads() const { return pool_.threads(); }
  const std::vector<int>& cpus() const { return cpus_; }
  size_t arena_bytes() const { return arena_.size(); }
  size_t scratch_bytes() const { return scratch_.size(); }

  // The plan for these input shapes, made now if there is none. It stays valid until the next call.
  Status plan(const std::vector<Shape>& input_shapes, Plan** plan);

  // Runs a plan of this session: inputs and outputs by graph input and output, dense. The calling
  // thread works too, on the CPUs of the session's affinity until it returns.
  // step_seconds, when given, takes the time of each step, as the calling thread sees it.
  void run(const Plan& plan, const float* const* inputs, float* const* outputs,
           double* step_seconds = nullptr);

  // The tensor after a run of the plan; meaningful for all of them with keep_activations.
  const uint8_t* activation(const Plan& plan, size_t tensor) const {
    return arena_.data() + plan.memory.offsets[tensor];
  }

 private:
  Session(std::shared_ptr<LoadedModel> model, const SessionOptions& options, Isa isa,
          const PoolOptions& pool)
      : model_(std::move(model)), options_(options), isa_(isa), cpus_(pool.cpus), pool_(pool) {}

  Status make_plan(const std::vector<Shape>& input_shapes, Plan* plan);
  Status make_step(size_t node, const std::vector<Shape>& shapes, PreparedCache::Access* constants,
                   Step* step);
  Status bind(Plan* plan);
  void bind_steps(const Plan& plan, size_t arena, std::vector<Step>* steps) const;
  struct Call;
  void run_piece(const Call& call, size_t thread, size_t piece, bool alone);

  std::shared_ptr<LoadedModel> model_;
  SessionOptions options_;
  Isa isa_;
  std::vector<int> cpus_;  // that it keeps to; empty: any
  ThreadPool pool_;
  std::list<Plan> plans_;  // the last used first
  AlignedBuffer arena_, scratch_;
};

}  // namespace pyedge
