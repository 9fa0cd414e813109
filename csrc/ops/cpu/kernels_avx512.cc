// The CPU kernels for AVX-512 (F, BW, DQ, VL). Compiled with those flags; see binding.gyp.
#if defined(__AVX512F__)
#define HEDDLE_ISA avx512
#include "ops/cpu/all_kernels.inl"
#endif
