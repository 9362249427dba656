#include "kernels/bandwidth/bandwidth.h"

#include <algorithm>
#include <chrono>

#include "base/buffer.h"

namespace pyedge {
namespace {

constexpr size_t kStep = 1024;  // what one round of the loop reads

ReadMemory reader_for(Isa isa) {
#if PYEDGE_X86
  if (isa >= Isa::avx512vnni) return read_avx512vnni;
  if (isa >= Isa::avx2) return read_avx2;
#else
  static_cast<void>(isa);
#endif
  return read_reference;
}

}  // namespace

double measure_bandwidth(Isa isa, size_t bytes) {
  using Clock = std::chrono::steady_clock;
  constexpr int kRuns = 24;
  constexpr double kLongEnough = 1e-3;  // seconds: shorter than what others get of a busy core
  const ReadMemory read = reader_for(isa);
  bytes = std::max(kStep, (bytes + kStep - 1) / kStep * kStep);
  AlignedBuffer buffer;
  if (!buffer.allocate(bytes)) return 0.0;
  volatile int sink = 0;
  size_t passes = 1;
  double best = 0.0;  // anything slower was disturbed
  for (int run = 0; run < kRuns;) {
    const Clock::time_point start = Clock::now();
    for (size_t pass = 0; pass < passes; ++pass) sink = sink ^ read(buffer.data(), bytes);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (seconds < kLongEnough) {
      passes *= 2;
      continue;
    }
    best = std::max(best, static_cast<double>(passes * bytes) / seconds * 1e-9);
    ++run;
  }
  return best;
}

}  // namespace pyedge
