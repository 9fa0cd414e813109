#include "device/cpu_isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
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

// VNNI's dot products of int8, and VBMI and VBMI2, which spread sparse values.
bool HasAvx512Vnni() {
  return HasAvx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("avx512vbmi2");
}

bool HasAvx512BFloat16() { return HasAvx512Vnni() && __builtin_cpu_supports("avx512bf16"); }

// Tiles are usable once the system has granted this process their large register state; threads that start later
// inherit it. Containers may forbid the call.
bool HasAmx() {
#if defined(__linux__)
  constexpr unsigned int kAmxBFloat16 = 1u << 22;
  constexpr unsigned int kAmxTile = 1u << 24;
  constexpr unsigned int kAmxInt8 = 1u << 25;
  unsigned int eax, ebx, ecx, edx;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kAmxBFloat16) == 0 || (edx & kAmxTile) == 0 || (edx & kAmxInt8) == 0) return false;
  if (!HasAvx512BFloat16()) return false;
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
#else
  return false;
#endif
}

#else  // only the scalar kernels are built

bool HasAvx2() { return false; }
bool HasAvx512() { return false; }
bool HasAvx512Vnni() { return false; }
bool HasAvx512BFloat16() { return false; }
bool HasAmx() { return false; }

#endif

}  // namespace

bool SupportsCpuIsa(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar:
      return true;
    case CpuIsa::kAvx2:
      return HasAvx2();
    case CpuIsa::kAvx512:
      return HasAvx512();
    case CpuIsa::kAvx512Vnni:
      return HasAvx512Vnni();
    case CpuIsa::kAvx512BFloat16:
      return HasAvx512BFloat16();
    case CpuIsa::kAmx:
      return HasAmx();
  }
  return false;
}

const char* CpuIsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kScalar:
      return "scalar";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Vnni:
      return "avx512_vnni";
    case CpuIsa::kAvx512BFloat16:
      return "avx512_bf16";
    case CpuIsa::kAmx:
      return "amx";
  }
  return "unknown";
}

CpuIsa DetectCpuIsa() {
  for (CpuIsa isa : {CpuIsa::kAmx, CpuIsa::kAvx512Vnni, CpuIsa::kAvx512, CpuIsa::kAvx2}) {
    if (SupportsCpuIsa(isa)) return isa;
  }
  return CpuIsa::kScalar;
}

CpuIsa ChooseCpuIsa(const std::string& name) {
  if (name.empty()) return DetectCpuIsa();
  for (CpuIsa isa :
       {CpuIsa::kScalar, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Vnni, CpuIsa::kAvx512BFloat16, CpuIsa::kAmx}) {
    if (name != CpuIsaName(isa)) continue;
    if (SupportsCpuIsa(isa)) return isa;
    throw Error(ErrorCode::kInvalidArgument,
                "cpuIsa must be an instruction set that this machine runs, the best is \"" +
                    std::string(CpuIsaName(DetectCpuIsa())) + "\", received \"" + name + "\"");
  }
  throw Error(ErrorCode::kInvalidArgument,
              "cpuIsa must be \"scalar\", \"avx2\", \"avx512\", \"avx512_vnni\", \"avx512_bf16\", \"amx\" or empty for "
              "the best, received " +
                  Quote(name));
}

}  // namespace heddle
