// Products of a warpgroup (wgmma) whose left operand is 2:4: of each group of four neighbours it has two, and
// `metadata` says which. What wgmma.cuh says holds here, for the register of the metadata too: a product reads it when
// its turn comes, long after it was issued.
#pragma once

#include "common/wgmma.cuh"

namespace heddle::cuda::hopper {

#define HEDDLE_SPARSE_INT8(columns, registers, a, b, m, ...)                                          \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sp.sync.aligned.m64n" columns \
               "k64.s32.s8.s8 {" registers "}, " a ", " b ", " m ", 0, p;\n}\n"                       \
               : __VA_ARGS__                                                                          \
               : "l"(left), "l"(right), "r"(metadata))
#define HEDDLE_SPARSE_SHARED_OF(type, columns, registers, a, b, m, ...)                                               \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sp.sync.aligned.m64n" columns "k32.f32." type \
               "." type " {" registers "}, " a ", " b ", " m ", 0, p, 1, 1, 0, 0;\n}\n"                               \
               : __VA_ARGS__                                                                                          \
               : "l"(left), "l"(right), "r"(metadata))
#define HEDDLE_SPARSE_REGISTERS_OF(type, columns, registers, a, b, m, ...)                                            \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sp.sync.aligned.m64n" columns "k32.f32." type \
               "." type " {" registers "}, {" a "}, " b ", " m ", 0, p, 1, 1, 0;\n}\n"                                \
               : __VA_ARGS__                                                                                          \
               : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right), "r"(metadata))
#define HEDDLE_SPARSE_SHARED(...)                 \
  if constexpr (std::is_same_v<T, __half>) {      \
    HEDDLE_SPARSE_SHARED_OF("f16", __VA_ARGS__);  \
  } else {                                        \
    HEDDLE_SPARSE_SHARED_OF("bf16", __VA_ARGS__); \
  }
#define HEDDLE_SPARSE_REGISTERS(...)                 \
  if constexpr (std::is_same_v<T, __half>) {         \
    HEDDLE_SPARSE_REGISTERS_OF("f16", __VA_ARGS__);  \
  } else {                                           \
    HEDDLE_SPARSE_REGISTERS_OF("bf16", __VA_ARGS__); \
  }

// d += left * right^T, of int8: 64 elements of right's rows, and the 32 that left has of them. Bit 0 of a lane's number
// says which of its rows, l / 4 or that and 8, its metadata is of; bit 1 which half of the 64 elements.
template <int kTiles>
__device__ __forceinline__ void MultiplyAddSparse(int32_t (&d)[kTiles][4], uint64_t left, uint64_t right,
                                                  uint32_t metadata) {
  static_assert(kTiles == 2 || kTiles == 4 || kTiles == 8 || kTiles == 16);
  if constexpr (kTiles == 2) {
    HEDDLE_SPARSE_INT8("16", HEDDLE_R8, "%8", "%9", "%10", HEDDLE_D2("+r", 0));
  } else if constexpr (kTiles == 4) {
    HEDDLE_SPARSE_INT8("32", HEDDLE_R16, "%16", "%17", "%18", HEDDLE_D4("+r", 0));
  } else if constexpr (kTiles == 8) {
    HEDDLE_SPARSE_INT8("64", HEDDLE_R32, "%32", "%33", "%34", HEDDLE_D8("+r", 0));
  } else if constexpr (kTiles == 16) {
    HEDDLE_SPARSE_INT8("128", HEDDLE_R64, "%64", "%65", "%66", HEDDLE_D16("+r", 0));
  }
}

// The same of T: 32 elements, and 16. Of the lanes 4 i and 4 i + 1, whose metadata counts, the former has that of the
// first 16 elements, the latter of the others: in the low half of row l / 4, in the high half of row l / 4 + 8.
template <typename T, int kTiles>
__device__ __forceinline__ void MultiplyAddSparse(float (&d)[kTiles][4], uint64_t left, uint64_t right,
                                                  uint32_t metadata) {
  static_assert(kTiles == 2 || kTiles == 4 || kTiles == 8 || kTiles == 16);
  if constexpr (kTiles == 2) {
    HEDDLE_SPARSE_SHARED("16", HEDDLE_R8, "%8", "%9", "%10", HEDDLE_D2("+f", 0));
  } else if constexpr (kTiles == 4) {
    HEDDLE_SPARSE_SHARED("32", HEDDLE_R16, "%16", "%17", "%18", HEDDLE_D4("+f", 0));
  } else if constexpr (kTiles == 8) {
    HEDDLE_SPARSE_SHARED("64", HEDDLE_R32, "%32", "%33", "%34", HEDDLE_D8("+f", 0));
  } else if constexpr (kTiles == 16) {
    HEDDLE_SPARSE_SHARED("128", HEDDLE_R64, "%64", "%65", "%66", HEDDLE_D16("+f", 0));
  }
}

// left in registers, as in MultiplyAddTransposed.
template <typename T, int kTiles>
__device__ __forceinline__ void MultiplyAddSparse(float (&d)[kTiles][4], const uint32_t (&left)[4], uint64_t right,
                                                  uint32_t metadata) {
  static_assert(kTiles == 2 || kTiles == 4 || kTiles == 8 || kTiles == 16);
  if constexpr (kTiles == 2) {
    HEDDLE_SPARSE_REGISTERS("16", HEDDLE_R8, "%8, %9, %10, %11", "%12", "%13", HEDDLE_D2("+f", 0));
  } else if constexpr (kTiles == 4) {
    HEDDLE_SPARSE_REGISTERS("32", HEDDLE_R16, "%16, %17, %18, %19", "%20", "%21", HEDDLE_D4("+f", 0));
  } else if constexpr (kTiles == 8) {
    HEDDLE_SPARSE_REGISTERS("64", HEDDLE_R32, "%32, %33, %34, %35", "%36", "%37", HEDDLE_D8("+f", 0));
  } else if constexpr (kTiles == 16) {
    HEDDLE_SPARSE_REGISTERS("128", HEDDLE_R64, "%64, %65, %66, %67", "%68", "%69", HEDDLE_D16("+f", 0));
  }
}

// Call it after the WaitForProducts that covers the products of this metadata. The compiler knows of operands that they
// are read until then, but takes a register of metadata to be free as soon as its product was issued. Here it is used
// once more, to no effect: no metadata is that large.
__device__ __forceinline__ void KeepMetadata(const uint32_t (&metadata)[4]) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.lt.u32 p, %0, 0xfffffff0;\n"
      "@p bra kept;\n"
      "nanosleep.u32 %0;\nnanosleep.u32 %1;\nnanosleep.u32 %2;\nnanosleep.u32 %3;\n"
      "kept:\n"
      "}\n" ::"r"(metadata[0]),
      "r"(metadata[1]), "r"(metadata[2]), "r"(metadata[3])
      : "memory");
}

#undef HEDDLE_SPARSE_INT8
#undef HEDDLE_SPARSE_SHARED_OF
#undef HEDDLE_SPARSE_REGISTERS_OF
#undef HEDDLE_SPARSE_SHARED
#undef HEDDLE_SPARSE_REGISTERS

}  // namespace heddle::cuda::hopper
