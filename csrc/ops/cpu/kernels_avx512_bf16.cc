// The products of bfloat16 matrices for AVX-512 with BF16; see binding.gyp.
#if defined(__x86_64__)  // compilers differ in what they call the feature
#define HEDDLE_ISA avx512_bf16
#include "ops/cpu/kernels.h"
#include "ops/cpu/simd.h"
#include "ops/cpu/simd_int8.h"
#include "ops/cpu/simd_math.h"
// The kernels themselves, inside HEDDLE_ISA's namespace.
#include "ops/cpu/activations.inl"
#include "ops/cpu/matmul_blocks.inl"
#include "ops/cpu/matmul_choices.inl"
#include "ops/cpu/matmul_expand.inl"
#include "ops/cpu/matmul_groups.inl"
#include "ops/cpu/pair_matmul_kernel.inl"
#endif
