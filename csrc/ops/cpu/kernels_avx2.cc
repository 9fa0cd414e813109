// The CPU kernels for AVX2 with FMA and F16C. Compiled with those flags; see binding.gyp.
#if defined(__AVX2__)
#define HEDDLE_ISA avx2
#include "ops/cpu/all_kernels.inl"
#endif
