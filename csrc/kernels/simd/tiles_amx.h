// The eight tile registers of AMX. Internal linkage: every file that includes this gets its own
// copy, compiled for its own instruction set.
#pragma once

#include "kernels/simd/amx_config.h"

namespace pyedge {

namespace {

// Of the thread that calls. Written in assembly since the compilers' macros do not say which
// memory an instruction reads.
struct AmxTiles {
  static void configure(const AmxConfig& config) {
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
  }
  static void release() { __asm__ volatile("tilerelease" : : :); }

  template <int kTile>
  static void load(const void* p, size_t stride) {
    __asm__ volatile("tileloadd (%0,%1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void store(void* p, size_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1)" : : "r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  // sums += a * b, of signed bytes.
  template <int kSum, int kA, int kB>
  static void dot() {
    __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
  }
};

}  // namespace
}  // namespace pyedge
