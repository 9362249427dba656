// The only place that asks the CPU what it can do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace pyedge {

enum CpuFeature : uint32_t {
  kAvx2 = 1u << 0,
  kFma = 1u << 1,
  kAvx512 = 1u << 2,  // F, BW, DQ and VL together
  kAvx512Vnni = 1u << 3,
  kAvxVnni = 1u << 4,
  kAmxInt8 = 1u << 5,
  kNeon = 1u << 6,
  kDotProd = 1u << 7,
  kI8mm = 1u << 8,
  kSha256 = 1u << 9,  // SHA-NI, or ARM's SHA-2
};

enum Architecture : uint32_t { kAnyArch, kX86, kArm };

struct CpuFeatures {
  Architecture architecture = kAnyArch;
  uint32_t bits = 0;
};

enum class Isa : uint32_t {
#define ISA(name, architecture, features) name,
#include "cpu/isa.def"
#undef ISA
};

struct IsaInfo {
  Isa isa;
  const char* name;
  Architecture architecture;
  uint32_t features;
};

const std::vector<IsaInfo>& isa_table();

// Read once and kept; what the operating system does not save over a context switch counts
// as absent.
const CpuFeatures& cpu_features();
std::vector<std::string> feature_names(const CpuFeatures& features);
std::string cpu_model_name();

// Whether a CPU with these features executes that instruction set. The features are an
// argument, so a test can ask what any CPU would get.
bool runs_on(Isa isa, const CpuFeatures& features);

// The best ISA for the features, limited by the environment variable PYEDGE_ISA when it is
// set and `request` is empty. An error names the instruction sets there are.
Status choose_isa(const std::string& request, const CpuFeatures& features, Isa* isa);

}  // namespace pyedge
