// Instruction sets that kernels are compiled for, and the choice among them at run time.
#pragma once

#include <string>

namespace heddle {

// Each runs wherever those after it do.
enum class CpuIsa { kScalar, kAvx2, kAvx512, kAvx512Vnni, kAvx512BFloat16, kAmx };

const char* CpuIsaName(CpuIsa isa);  // "scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"

// Whether both this machine (cpuid and the operating system's saved state) and this build do.
bool SupportsCpuIsa(CpuIsa isa);

// The best one that this machine and this build support. Never kAvx512BFloat16, which is half as fast as kAvx512 on
// Intel's processors in bfloat16; see docs/decisions.md.
CpuIsa DetectCpuIsa();

// `name` is one of the names above or "" for DetectCpuIsa(). Fails with kInvalidArgument for an unknown name, and for
// one that this machine cannot run.
CpuIsa ChooseCpuIsa(const std::string& name);

}  // namespace heddle
