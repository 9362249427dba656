#include "kernels/bandwidth/bandwidth.h"
#include "kernels/bandwidth/read.h"

namespace pyedge {
namespace {

struct Register {
  using Lanes = int32_t __attribute__((vector_size(32)));
};

}  // namespace

const ReadMemory read_avx2 = read_memory<Register>;

}  // namespace pyedge
