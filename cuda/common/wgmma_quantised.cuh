// Products of a warpgroup (wgmma) that wgmma.cuh has no need of: of int8 with int32 sums, 32 elements at a time, and of
// 16-bit floats whose left operand is in registers. What is said there holds here.
#pragma once

#include "common/wgmma.cuh"

namespace heddle::cuda::hopper {

// Describes a right operand whose rows have 16 elements, all that a product takes, without a swizzle: the first 8 of
// all rows, 16 bytes a row, and `half_bytes` further the others.
__device__ __forceinline__ uint64_t DescribeHalves(uint32_t shared_address, int half_bytes) {
  constexpr uint64_t kBytesOf8Rows = 128;
  return (kBytesOf8Rows >> 4) << 32 | static_cast<uint64_t>(half_bytes >> 4) << 16 | (shared_address & 0x3ffff) >> 4;
}

template <int kTiles>
__device__ __forceinline__ void Settle(int32_t (&d)[kTiles][4]) {
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) asm volatile("" : "+r"(d[j][e])::"memory");
  }
}

#define HEDDLE_INT8(columns, registers, a, b, ...)                                                 \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sync.aligned.m64n" columns \
               "k32.s32.s8.s8 {" registers "}, " a ", " b ", p;\n}\n"                              \
               : __VA_ARGS__                                                                       \
               : "l"(left), "l"(right))
#define HEDDLE_REGISTERS_OF(type, columns, registers, a, b, ...)                                                   \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type \
               "." type " {" registers "}, {" a "}, " b ", p, 1, 1, 0;\n}\n"                                       \
               : __VA_ARGS__                                                                                       \
               : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right))
#define HEDDLE_REGISTERS(...)                 \
  if constexpr (std::is_same_v<T, __half>) {  \
    HEDDLE_REGISTERS_OF("f16", __VA_ARGS__);  \
  } else {                                    \
    HEDDLE_REGISTERS_OF("bf16", __VA_ARGS__); \
  }

// d += left * right^T, of int8. Both have rows of 128 elements, of which the product takes 32: left 64 rows, right one
// for each of the 8 * kTiles columns of d.
template <int kTiles>
__device__ __forceinline__ void MultiplyAddTransposed(int32_t (&d)[kTiles][4], uint64_t left, uint64_t right) {
  static_assert(kTiles == 2 || kTiles == 4 || kTiles == 6 || kTiles == 8 || kTiles == 12 || kTiles == 14 ||
                kTiles == 16 || kTiles == 32);
  if constexpr (kTiles == 2) {
    HEDDLE_INT8("16", HEDDLE_R8, "%8", "%9", HEDDLE_D2("+r", 0));
  } else if constexpr (kTiles == 4) {
    HEDDLE_INT8("32", HEDDLE_R16, "%16", "%17", HEDDLE_D4("+r", 0));
  } else if constexpr (kTiles == 6) {
    HEDDLE_INT8("48", HEDDLE_R24, "%24", "%25", HEDDLE_D4("+r", 0), HEDDLE_D2("+r", 4));
  } else if constexpr (kTiles == 8) {
    HEDDLE_INT8("64", HEDDLE_R32, "%32", "%33", HEDDLE_D8("+r", 0));
  } else if constexpr (kTiles == 12) {
    HEDDLE_INT8("96", HEDDLE_R48, "%48", "%49", HEDDLE_D8("+r", 0), HEDDLE_D4("+r", 8));
  } else if constexpr (kTiles == 14) {
    HEDDLE_INT8("112", HEDDLE_R56, "%56", "%57", HEDDLE_D8("+r", 0), HEDDLE_D4("+r", 8), HEDDLE_D2("+r", 12));
  } else if constexpr (kTiles == 16) {
    HEDDLE_INT8("128", HEDDLE_R64, "%64", "%65", HEDDLE_D16("+r", 0));
  } else if constexpr (kTiles == 32) {
    HEDDLE_INT8("256", HEDDLE_R128, "%128", "%129", HEDDLE_D16("+r", 0), HEDDLE_D16("+r", 16));
  }
}

// d += left * right^T, of T. left is a warp's 16 rows and columns as in MultiplyAdd16x8x16; right has rows of 64
// elements, of which the product takes 16, or rows of 16 that DescribeHalves describes.
template <typename T, int kTiles>
__device__ __forceinline__ void MultiplyAddTransposed(float (&d)[kTiles][4], const uint32_t (&left)[4],
                                                      uint64_t right) {
  static_assert(kTiles == 2 || kTiles == 4 || kTiles == 8 || kTiles == 16 || kTiles == 32);
  if constexpr (kTiles == 2) {
    HEDDLE_REGISTERS("16", HEDDLE_R8, "%8, %9, %10, %11", "%12", HEDDLE_D2("+f", 0));
  } else if constexpr (kTiles == 4) {
    HEDDLE_REGISTERS("32", HEDDLE_R16, "%16, %17, %18, %19", "%20", HEDDLE_D4("+f", 0));
  } else if constexpr (kTiles == 8) {
    HEDDLE_REGISTERS("64", HEDDLE_R32, "%32, %33, %34, %35", "%36", HEDDLE_D8("+f", 0));
  } else if constexpr (kTiles == 16) {
    HEDDLE_REGISTERS("128", HEDDLE_R64, "%64, %65, %66, %67", "%68", HEDDLE_D16("+f", 0));
  } else if constexpr (kTiles == 32) {
    HEDDLE_REGISTERS("256", HEDDLE_R128, "%128, %129, %130, %131", "%132", HEDDLE_D16("+f", 0), HEDDLE_D16("+f", 16));
  }
}

#undef HEDDLE_INT8
#undef HEDDLE_REGISTERS_OF
#undef HEDDLE_REGISTERS

}  // namespace heddle::cuda::hopper
