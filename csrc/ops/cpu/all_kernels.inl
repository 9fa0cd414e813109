// Every kernel for the instruction set HEDDLE_ISA, and their table.
#include "ops/cpu/kernels.h"
#include "ops/cpu/simd.h"
#include "ops/cpu/simd_int8.h"
#include "ops/cpu/simd_math.h"
// The kernels themselves; each file is compiled once per instruction set, inside HEDDLE_ISA's namespace.
#include "ops/cpu/activations.inl"
#include "ops/cpu/attention_cache.inl"
#include "ops/cpu/attention_kernel.inl"
#include "ops/cpu/elementwise_kernels.inl"
#include "ops/cpu/matmul_blocks.inl"
#include "ops/cpu/matmul_choices.inl"
#include "ops/cpu/matmul_expand.inl"
#include "ops/cpu/matmul_groups.inl"
#include "ops/cpu/matmul_int8.inl"
#include "ops/cpu/matmul_int8_kernel.inl"
#include "ops/cpu/matmul_kernel.inl"
#include "ops/cpu/row_kernels.inl"

namespace heddle::ops::cpu::HEDDLE_ISA {

extern const Kernels kKernels;
const Kernels kKernels = {
    Matmul,          MatmulScratchFloats,
    nullptr,         &kInt8MatmulKernels,
    Attention,       AttentionScratchFloats,
    RmsNormRow,      AddRow,
    SoftCapRow,      RotateHead,
    WidenRow,        NarrowRow,
    NarrowRowToInt8, ArgMaxRow,
    LogSumExpRow,    ExpAndSumRow,
};

}  // namespace heddle::ops::cpu::HEDDLE_ISA
