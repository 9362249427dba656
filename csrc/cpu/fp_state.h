// Rounding to nearest and no flushing of denormals, whatever the calling program has set: the
// numerics promise must not depend on another library's -ffast-math.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace pyedge {

class ScopedFpState {
 public:
#if defined(__x86_64__)
  ScopedFpState() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~ScopedFpState() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
  ScopedFpState() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" : : "r"(uint64_t{0}));
  }
  ~ScopedFpState() { __asm__ volatile("msr fpcr, %0" : : "r"(saved_)); }
#endif
  ScopedFpState(const ScopedFpState&) = delete;
  ScopedFpState& operator=(const ScopedFpState&) = delete;

 private:
#if defined(__aarch64__)
  uint64_t saved_ = 0;
#else
  uint32_t saved_ = 0;
#endif
};

}  // namespace pyedge
