#include "cpu/cpu.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__linux__) && defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace pyedge {
namespace {

#if defined(__x86_64__)
// The register states that the operating system saves (XCR0). Read with inline assembly, so that
// this file needs no compile flags.
uint64_t saved_states() {
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

// Linux gives a process the tile registers when it asks; the answer holds for all its threads.
bool may_use_tiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

CpuFeatures detect() {
  CpuFeatures result{kX86, 0};
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return result;
  const bool ssse3 = c >> 9 & 1, sse41 = c >> 19 & 1;
  const bool fma = c >> 12 & 1, xsave = c >> 27 & 1, avx = c >> 28 & 1;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return result;
  if (ssse3 && sse41 && (b >> 29 & 1)) result.bits |= kSha256;
  if (!xsave || !avx) return result;
  const uint64_t states = saved_states();
  const bool ymm = (states & 0x6) == 0x6, zmm = (states & 0xe6) == 0xe6;
  const bool tiles = (states & 0x60000) == 0x60000;
  if (!ymm) return result;
  const uint32_t subleaves = a;
  if (b >> 5 & 1) result.bits |= kAvx2;
  if (fma) result.bits |= kFma;
  const bool avx512 = (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) && (b >> 31 & 1);
  if (zmm && avx512) result.bits |= kAvx512;
  if (zmm && avx512 && (c >> 11 & 1)) result.bits |= kAvx512Vnni;
  if (tiles && (d >> 24 & 1) && (d >> 25 & 1) && may_use_tiles()) result.bits |= kAmxInt8;
  if (subleaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1)) {
    result.bits |= kAvxVnni;
  }
  return result;
}
#elif defined(__aarch64__)
CpuFeatures detect() {
  CpuFeatures result{kArm, kNeon};
#if defined(__linux__)
  constexpr unsigned long kHasSha2 = 1ul << 6, kHasDotProd = 1ul << 20;  // of the first word
  constexpr unsigned long kHasI8mm = 1ul << 13;                          // of the second
  if (getauxval(AT_HWCAP) & kHasSha2) result.bits |= kSha256;
  if (getauxval(AT_HWCAP) & kHasDotProd) result.bits |= kDotProd;
  if (getauxval(AT_HWCAP2) & kHasI8mm) result.bits |= kI8mm;
#endif
  return result;
}
#else
CpuFeatures detect() { return {}; }
#endif

#if defined(__linux__) && defined(__aarch64__)
// What the main ID register says of processors in cameras, Jetsons and servers.
struct ArmPart {
  uint64_t implementer, part;
  const char* name;
};
constexpr ArmPart kArmParts[] = {
    {0x41, 0xd03, "Cortex-A53"},  {0x41, 0xd05, "Cortex-A55"},   {0x41, 0xd07, "Cortex-A57"},
    {0x41, 0xd08, "Cortex-A72"},  {0x41, 0xd09, "Cortex-A73"},   {0x41, 0xd0a, "Cortex-A75"},
    {0x41, 0xd0b, "Cortex-A76"},  {0x41, 0xd0c, "Neoverse-N1"},  {0x41, 0xd40, "Neoverse-V1"},
    {0x41, 0xd41, "Cortex-A78"},  {0x41, 0xd42, "Cortex-A78AE"}, {0x41, 0xd49, "Neoverse-N2"},
    {0x41, 0xd4f, "Neoverse-V2"}, {0x4e, 0x004, "Carmel"},
};
#endif

}  // namespace

const std::vector<IsaInfo>& isa_table() {
  static const std::vector<IsaInfo> table = {
#define ISA(name, architecture, features) {Isa::name, #name, architecture, features},
#include "cpu/isa.def"
#undef ISA
  };
  return table;
}

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

std::vector<std::string> feature_names(const CpuFeatures& features) {
  static constexpr const char* kNames[] = {"avx2",     "fma",  "avx512",  "avx512vnni", "avxvnni",
                                           "amx_int8", "neon", "dotprod", "i8mm",       "sha256"};
  std::vector<std::string> names;
  for (size_t bit = 0; bit < std::size(kNames); ++bit) {
    if (features.bits >> bit & 1) names.emplace_back(kNames[bit]);
  }
  return names;
}

std::string cpu_model_name() {
#if defined(__x86_64__)
  uint32_t words[12] = {};
  uint32_t a, b, c, d;
  if (!__get_cpuid(0x80000000u, &a, &b, &c, &d) || a < 0x80000004u) return "x86-64";
  for (uint32_t i = 0; i < 3; ++i) {
    __get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2],
                &words[4 * i + 3]);
  }
  char text[sizeof words + 1] = {};
  std::memcpy(text, words, sizeof words);
  const std::string name = text;
  const size_t begin = name.find_first_not_of(' '), end = name.find_last_not_of(' ');
  return begin == std::string::npos ? "x86-64" : name.substr(begin, end - begin + 1);
#elif defined(__linux__) && defined(__aarch64__)
  constexpr unsigned long kHasCpuid = 1ul << 11;
  if (!(getauxval(AT_HWCAP) & kHasCpuid)) return "aarch64";
  uint64_t id;
  __asm__("mrs %0, midr_el1" : "=r"(id));
  const uint64_t implementer = id >> 24 & 0xff, part = id >> 4 & 0xfff;
  for (const ArmPart& known : kArmParts) {
    if (known.implementer == implementer && known.part == part) return known.name;
  }
  char text[40];
  std::snprintf(text, sizeof text, "aarch64 0x%02x 0x%03x", static_cast<unsigned>(implementer),
                static_cast<unsigned>(part));
  return text;
#else
  return "unknown";
#endif
}

bool runs_on(Isa isa, const CpuFeatures& features) {
  const IsaInfo& info = isa_table()[static_cast<size_t>(isa)];
  return (info.architecture == kAnyArch || info.architecture == features.architecture) &&
         (info.features & ~features.bits) == 0;
}

Status choose_isa(const std::string& request, const CpuFeatures& features, Isa* isa) {
  std::string wanted = request;
  if (const char* variable = std::getenv("PYEDGE_ISA"); wanted.empty() && variable != nullptr) {
    wanted = variable;
  }
  std::string usable;
  Isa best = Isa::reference;
  for (const IsaInfo& info : isa_table()) {
    if (!runs_on(info.isa, features)) continue;
    usable += (usable.empty() ? "" : ", ") + std::string(info.name);
    best = info.isa;
    if (wanted == info.name) {
      *isa = info.isa;
      return {};
    }
  }
  if (wanted.empty()) {
    *isa = best;
    return {};
  }
  for (const IsaInfo& info : isa_table()) {
    if (wanted == info.name) {
      return {StatusCode::kUnsupported,
              "isa: this CPU does not execute " + wanted + "; it can use " + usable};
    }
  }
  return invalid_argument("isa: there is no " + wanted + "; this CPU can use " + usable);
}

}  // namespace pyedge
