// The products of bfloat16 and int8 matrices for AMX. Compiled for AVX-512 with BF16 and AMX tiles; see binding.gyp.
#if defined(__x86_64__)  // compilers differ in what they call the feature
#define HEDDLE_ISA amx
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
#include "ops/cpu/matmul_int8.inl"
#include "ops/cpu/matmul_tile_rows.inl"
#include "ops/cpu/matmul_tile_sums.inl"
#include "ops/cpu/matmul_tile_weights.inl"
#include "ops/cpu/matmul_tiles.inl"
#include "ops/cpu/tile_matmul_kernel.inl"
#endif
