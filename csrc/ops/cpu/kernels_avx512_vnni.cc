// The CPU kernels for AVX-512 with VNNI, VBMI and VBMI2. Compiled with those flags; see binding.gyp.
#if defined(__AVX512VNNI__)
#define HEDDLE_ISA avx512_vnni
#include "ops/cpu/all_kernels.inl"
#endif
