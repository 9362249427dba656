// What one core of this CPU reaches at best: multiply-adds on registers only, the yardstick that
// the speed of a network is held against.
#pragma once

#include <cstddef>

#include "cpu/cpu.h"

namespace pyedge {

// A loop of independent multiply-adds written for one instruction set. Each function runs
// `rounds` rounds and returns the operations done, a multiply-add counting two.
struct PeakProbe {
  double (*f32)(size_t rounds);
  double (*i8)(size_t rounds);
};

extern const PeakProbe peak_reference;
#if PYEDGE_X86
extern const PeakProbe peak_avx2;
extern const PeakProbe peak_avxvnni;
extern const PeakProbe peak_avx512vnni;
extern const PeakProbe peak_amx;
#endif
#if PYEDGE_ARM
extern const PeakProbe peak_neon;
double peak_i8_dotprod(size_t rounds);
double peak_i8_i8mm(size_t rounds);
#endif

struct Peak {
  double f32_gflops = 0.0;
  double i8_gops = 0.0;
};

// Measures one thread of this CPU for about a tenth of a second. An instruction set that has no
// loop of its own gets the best one below it. `isa` must run on this CPU.
Peak measure_peak(Isa isa);

}  // namespace pyedge
