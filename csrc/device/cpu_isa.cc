#include "device/cpu_isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/error.h"
#include "base/quote.h"

namespace heddle {
namespace {

#if defined(__x86_64__)

// clang 14 does not know "f16c" as a name; the operating system's part is that of AVX.
bool HasF16c() {
  unsigned int eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

bool HasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c(); }

bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

#else  // only the scalar kernels are built

bool HasAvx2() { return false; }
bool HasAvx512() { return false; }

#endif

bool Supports(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar:
      return true;
    case CpuIsa::kAvx2:
      return HasAvx2();
    case CpuIsa::kAvx512:
      return HasAvx512();
  }
  return false;
}

}  // namespace

const char* CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar:
      return "scalar";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
  }
  return "unknown";
}

CpuIsa DetectCpuIsa() {
  for (CpuIsa isa : {CpuIsa::kAvx512, CpuIsa::kAvx2}) {
    if (Supports(isa)) return isa;
  }
  return CpuIsa::kScalar;
}

CpuIsa ChooseCpuIsa(const std::string& name) {
  if (name.empty()) return DetectCpuIsa();
  for (CpuIsa isa : {CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvx512}) {
    if (name != CpuIsaName(isa)) continue;
    if (Supports(isa)) return isa;
    throw Error(ErrorCode::kInvalidArgument, "cpuIsa must be an instruction set that this machine runs, at most \"" +
                                                 std::string(CpuIsaName(DetectCpuIsa())) + "\", received \"" + name +
                                                 "\"");
  }
  throw Error(ErrorCode::kInvalidArgument,
              "cpuIsa must be \"scalar\", \"avx2\", \"avx512\" or empty for the best, received " + Quote(name));
}

}  // namespace heddle
