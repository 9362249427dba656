// What a kernel is: one row of a kernels.def and the functions below.
//
// Every kernel of an operation computes the same function as its reference. INT8 kernels give
// the same bytes. f32 kernels of conv and fully_connected that sum in full accumulate in the order
// of the reference with fused multiply-adds, so they give the same bits too; Winograd kernels
// (conv/f32/winograd.h) come within a stated tolerance. Neither depends on threads or batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "cpu/cpu.h"
#include "graph/graph.h"

namespace pyedge {

constexpr size_t kAlignment = 64;  // of every tensor, prepared block and scratch block
// Readable bytes behind every activation and constant a kernel is given: over-reading this far
// is allowed, and what is read there must not influence the result.
constexpr size_t kSlack = 64;

static constexpr size_t align_up(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;
  Quant quant;
  bool present = false;

  template <typename T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
  template <typename T>
  T* mutable_as() const {
    return static_cast<T*>(data);
  }
};

struct OpArgs {
  Op op{};
  const int32_t* ints = nullptr;
  int int_count = 0;
  const float* floats = nullptr;
  int float_count = 0;
  const TensorView* inputs = nullptr;  // one per slot; absent ones have present = false
  int input_count = 0;
  const TensorView* outputs = nullptr;
  int output_count = 0;
};

// Functions must be reentrant: `run` is called by several threads with disjoint task ranges.
// None may allocate, throw or keep state.
struct Kernel {
  const char* name;  // <op>_<dtype>_<isa>, as in the table
  Op op;
  Isa isa;
  // Whether it takes these dtypes and shapes. Only `suits`, `prepare` and `run` read data: anywhere
  // else pointers to it are null or lead nowhere.
  bool (*accepts)(const OpArgs&);
  // Relative time for these shapes against the other kernels of the same op; the least wins.
  // Null means 1 for an optimized kernel and 1000 for a reference.
  double (*cost)(const OpArgs&);
  // Packing: a function of constants, attributes and quantization only, never of the sizes of
  // the activations, because the block is shared by all plans, and never of the machine, because
  // it may be kept in a file. For the same reason `run` takes only values from it, nothing that
  // decides which memory is touched. Null where nothing is prepared.
  size_t (*prepared_bytes)(const OpArgs&);
  void (*prepare)(const OpArgs&, void* prepared);
  // Scratch for each thread. Null means none.
  size_t (*scratch_bytes)(const OpArgs&);
  // Into how many independent tasks the work falls: a function of the shapes, never of the
  // number of threads.
  size_t (*tasks)(const OpArgs&);
  void (*run)(const OpArgs&, const void* prepared, void* scratch, size_t begin, size_t end);
  // Input slots, a bit each, of which `prepare` took in all that `run` needs: `run` reads none of
  // their data, which may be gone by then.
  uint32_t packs = 0;
  // Input slots, a bit each, that may lie where the output does if they have its dtype and number
  // of elements: a task reads of them only elements whose output it writes itself, and each before
  // it writes that output.
  uint32_t in_place = 0;
  // Whether the values of the constants allow it, for a kernel that prepares something; asked once
  // for a node. Null means that any do.
  bool (*suits)(const OpArgs&) = nullptr;
};

// All compiled kernels, in the order of the tables.
const Kernel* const* kernels(size_t* count);

// The cheapest kernel that takes the arguments on an ISA no better than `limit`, for a CPU with
// these features. Null where there is none. `suits` answers for Kernel::suits.
const Kernel* select_kernel(const OpArgs& args, Isa limit, const CpuFeatures& features,
                            const std::function<bool(const Kernel&)>& suits);
const Kernel* select_kernel(const OpArgs& args, Isa limit, const CpuFeatures& features);

}  // namespace pyedge
