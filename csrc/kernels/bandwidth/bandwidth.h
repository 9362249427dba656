// How fast one core reads memory that it has read before: from the cache that a working set of
// that size lies in. With the peak, the roofline that a layer is held against.
#pragma once

#include <cstddef>

#include "cpu/cpu.h"

namespace pyedge {

// Reads `bytes` bytes, a multiple of 1024, from an address that is a multiple of 64. What it
// returns depends on all of them, so that no read can be left out.
using ReadMemory = int (*)(const void* data, size_t bytes);

extern const ReadMemory read_reference;
#if PYEDGE_X86
extern const ReadMemory read_avx2;
extern const ReadMemory read_avx512vnni;
#endif

// Gigabytes per second of one thread that reads a working set of at least that size again and
// again; 0 where there is not as much memory. Takes about a fortieth of a second, more
// for sets of many megabytes. `isa` must run on this CPU.
double measure_bandwidth(Isa isa, size_t bytes);

}  // namespace pyedge
