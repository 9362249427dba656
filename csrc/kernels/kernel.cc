#include "kernels/kernel.h"

namespace pyedge {

#define KERNEL(symbol) extern const Kernel symbol;
#include "kernels/kernels.def"
#undef KERNEL

namespace {
constexpr const Kernel* kKernels[] = {
#define KERNEL(symbol) &symbol,
#include "kernels/kernels.def"
#undef KERNEL
};
}  // namespace

const Kernel* const* kernels(size_t* count) {
  *count = std::size(kKernels);
  return kKernels;
}

const Kernel* select_kernel(const OpArgs& args, Isa limit, const CpuFeatures& features,
                            const std::function<bool(const Kernel&)>& suits) {
  const Op op = args.op == Op::k_fully_connected ? Op::k_conv : args.op;
  const Kernel* best = nullptr;
  double best_cost = 0.0;
  for (const Kernel* kernel : kKernels) {
    if (kernel->op != op || kernel->isa > limit || !runs_on(kernel->isa, features) ||
        !kernel->accepts(args)) {
      continue;
    }
    const double cost = kernel->cost                    ? kernel->cost(args)
                        : kernel->isa == Isa::reference ? 1000.0
                                                        : 1.0;
    // At equal cost the better instruction set wins.
    const bool better =
        best == nullptr || cost < best_cost || (cost == best_cost && kernel->isa > best->isa);
    if (better && (kernel->suits == nullptr || suits(*kernel))) {
      best = kernel;
      best_cost = cost;
    }
  }
  return best;
}

const Kernel* select_kernel(const OpArgs& args, Isa limit, const CpuFeatures& features) {
  return select_kernel(args, limit, features,
                       [&](const Kernel& kernel) { return kernel.suits(args); });
}

}  // namespace pyedge
