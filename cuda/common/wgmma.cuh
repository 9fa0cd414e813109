// Products of a warpgroup (wgmma), of 16-bit floats with float32 sums: 64 rows by N columns, 16 elements of each at a
// time. Asynchronous: between BeginProducts and the WaitForProducts that covers them nobody touches the registers of a
// product.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/numeric.cuh"
#include "common/wgmma_registers.h"

namespace heddle::cuda::hopper {

// Describes an operand in shared memory to a product: rows of 64 elements, 128 bytes, swizzled over 8 rows as tensor
// maps do it, 8 rows after 8 rows. A multiple of 16 bytes may be added in units of 16 bytes.
//
// When the rows are what the product sums over, as with values, its columns are the elements of a row; those from the
// 64th on lie `column_bytes` further each. Otherwise `column_bytes` is of no meaning.
__device__ __forceinline__ uint64_t Describe(uint32_t shared_address, int column_bytes = 16) {
  constexpr uint64_t kSwizzle128Bytes = uint64_t{1} << 62;
  constexpr uint64_t kBytesOf8Rows = 1024;
  return kSwizzle128Bytes | (kBytesOf8Rows >> 4) << 32 | static_cast<uint64_t>(column_bytes >> 4) << 16 |
         (shared_address & 0x3ffff) >> 4;
}

// What `description` describes, so many units on. Only the address changes, which has no carry.
__device__ __forceinline__ uint64_t Advance(uint64_t description, int units) {
  return (description & 0xffffffff00000000) | (static_cast<uint32_t>(description) + units);
}

// Before the first product, and again after its registers were written otherwise.
__device__ __forceinline__ void BeginProducts() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// The products since the last call are a group.
__device__ __forceinline__ void CommitProducts() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until at most `kPending` of the youngest groups are under way.
template <int kPending>
__device__ __forceinline__ void WaitForProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Keeps the compiler, which does not know what WaitForProducts waits for, from reading these before it.
template <int kTiles>
__device__ __forceinline__ void Settle(float (&d)[kTiles][4]) {
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) asm volatile("" : "+f"(d[j][e])::"memory");
  }
}

// d = a * b, plus d where `add`; both operands in shared memory.
#define HEDDLE_SHARED_BY_SHARED_OF(type, columns, registers, a, b, add, ...)                             \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add ", 0;\nwgmma.mma_async.sync.aligned.m64n" columns \
               "k16.f32." type "." type " {" registers "}, " a ", " b ", p, 1, 1, 0, 0;\n}\n"            \
               : __VA_ARGS__                                                                             \
               : "l"(left), "l"(right), "r"(static_cast<int>(kAdd)))
#define HEDDLE_SHARED_BY_SHARED(...)                 \
  if constexpr (std::is_same_v<T, __half>) {         \
    HEDDLE_SHARED_BY_SHARED_OF("f16", __VA_ARGS__);  \
  } else {                                           \
    HEDDLE_SHARED_BY_SHARED_OF("bf16", __VA_ARGS__); \
  }
// d += a * b; a in registers, b transposed in shared memory.
#define HEDDLE_REGISTERS_BY_SHARED_OF(type, columns, registers, a, b, ...)                                         \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type \
               "." type " {" registers "}, {" a "}, " b ", p, 1, 1, 1;\n}\n"                                       \
               : __VA_ARGS__                                                                                       \
               : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right))
#define HEDDLE_REGISTERS_BY_SHARED(...)                 \
  if constexpr (std::is_same_v<T, __half>) {            \
    HEDDLE_REGISTERS_BY_SHARED_OF("f16", __VA_ARGS__);  \
  } else {                                              \
    HEDDLE_REGISTERS_BY_SHARED_OF("bf16", __VA_ARGS__); \
  }

// d = left * right^T, plus d where kAdd. Both have rows of 64 elements, of which the product takes 16: left 64 rows,
// right one for each of the 8 * kTiles columns of d.
template <typename T, bool kAdd, int kTiles>
__device__ __forceinline__ void MultiplyTransposed(float (&d)[kTiles][4], uint64_t left, uint64_t right) {
  static_assert(kTiles == 4 || kTiles == 6 || kTiles == 8 || kTiles == 10 || kTiles == 12 || kTiles == 14 ||
                kTiles == 16);
  if constexpr (kTiles == 4) {
    HEDDLE_SHARED_BY_SHARED("32", HEDDLE_R16, "%16", "%17", "%18", HEDDLE_D4("+f", 0));
  } else if constexpr (kTiles == 6) {
    HEDDLE_SHARED_BY_SHARED("48", HEDDLE_R24, "%24", "%25", "%26", HEDDLE_D4("+f", 0), HEDDLE_D2("+f", 4));
  } else if constexpr (kTiles == 8) {
    HEDDLE_SHARED_BY_SHARED("64", HEDDLE_R32, "%32", "%33", "%34", HEDDLE_D8("+f", 0));
  } else if constexpr (kTiles == 10) {
    HEDDLE_SHARED_BY_SHARED("80", HEDDLE_R40, "%40", "%41", "%42", HEDDLE_D8("+f", 0), HEDDLE_D2("+f", 8));
  } else if constexpr (kTiles == 12) {
    HEDDLE_SHARED_BY_SHARED("96", HEDDLE_R48, "%48", "%49", "%50", HEDDLE_D8("+f", 0), HEDDLE_D4("+f", 8));
  } else if constexpr (kTiles == 14) {
    HEDDLE_SHARED_BY_SHARED("112", HEDDLE_R56, "%56", "%57", "%58", HEDDLE_D8("+f", 0), HEDDLE_D4("+f", 8),
                            HEDDLE_D2("+f", 12));
  } else if constexpr (kTiles == 16) {
    HEDDLE_SHARED_BY_SHARED("128", HEDDLE_R64, "%64", "%65", "%66", HEDDLE_D8("+f", 0), HEDDLE_D8("+f", 8));
  }
}

// d += left * right. left is a warp's 16 rows and columns as in MultiplyAdd16x8x16; right has 16 rows of 8 * kTiles
// elements.
template <typename T, int kTiles>
__device__ __forceinline__ void MultiplyAdd(float (&d)[kTiles][4], const uint32_t (&left)[4], uint64_t right) {
  static_assert(kTiles == 8 || kTiles == 12 || kTiles == 16);
  if constexpr (kTiles == 8) {
    HEDDLE_REGISTERS_BY_SHARED("64", HEDDLE_R32, "%32, %33, %34, %35", "%36", HEDDLE_D8("+f", 0));
  } else if constexpr (kTiles == 12) {
    HEDDLE_REGISTERS_BY_SHARED("96", HEDDLE_R48, "%48, %49, %50, %51", "%52", HEDDLE_D8("+f", 0), HEDDLE_D4("+f", 8));
  } else if constexpr (kTiles == 16) {
    HEDDLE_REGISTERS_BY_SHARED("128", HEDDLE_R64, "%64, %65, %66, %67", "%68", HEDDLE_D8("+f", 0), HEDDLE_D8("+f", 8));
  }
}

#undef HEDDLE_SHARED_BY_SHARED_OF
#undef HEDDLE_SHARED_BY_SHARED
#undef HEDDLE_REGISTERS_BY_SHARED_OF
#undef HEDDLE_REGISTERS_BY_SHARED

}  // namespace heddle::cuda::hopper
