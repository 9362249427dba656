#include "kernels/peak/peak.h"

#include <algorithm>
#include <chrono>

namespace pyedge {
namespace {

PeakProbe probe_for(Isa isa) {
#if PYEDGE_X86
  if (isa >= Isa::amx) return peak_amx;
  if (isa >= Isa::avx512vnni) return peak_avx512vnni;
  if (isa >= Isa::avxvnni) return peak_avxvnni;
  if (isa >= Isa::avx2) return peak_avx2;
#elif PYEDGE_ARM
  if (isa >= Isa::i8mm) return {peak_neon.f32, peak_i8_i8mm};
  if (isa >= Isa::dotprod) return {peak_neon.f32, peak_i8_dotprod};
  if (isa >= Isa::neon) return peak_neon;
#else
  static_cast<void>(isa);
#endif
  return peak_reference;
}

// The best of several short runs: anything slower was disturbed.
double best_giga_per_second(double (*probe)(size_t)) {
  using Clock = std::chrono::steady_clock;
  constexpr int kRuns = 8;
  constexpr double kLongEnough = 4e-3;  // seconds
  size_t rounds = 1024;
  double best = 0.0;
  for (int run = 0; run < kRuns;) {
    const Clock::time_point start = Clock::now();
    const double operations = probe(rounds);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (seconds < kLongEnough) {
      rounds *= 2;
      continue;
    }
    best = std::max(best, operations / seconds * 1e-9);
    ++run;
  }
  return best;
}

}  // namespace

Peak measure_peak(Isa isa) {
  const PeakProbe probe = probe_for(isa);
  return {best_giga_per_second(probe.f32), best_giga_per_second(probe.i8)};
}

}  // namespace pyedge
