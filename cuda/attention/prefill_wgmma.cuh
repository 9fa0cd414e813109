// Products of a warpgroup (wgmma), of 16-bit floats with float32 sums: 64 rows by N columns, 16 elements of each at a
// time. Asynchronous: between BeginProducts and the WaitForProducts that covers them nobody touches the registers of a
// product.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/numeric.cuh"

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

// An instruction names every register that it takes, and no template can write that down.
#define HEDDLE_D1(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define HEDDLE_D2(j) HEDDLE_D1(j), HEDDLE_D1(j + 1)
#define HEDDLE_D4(j) HEDDLE_D2(j), HEDDLE_D2(j + 2)
#define HEDDLE_D8(j) HEDDLE_D4(j), HEDDLE_D4(j + 4)
#define HEDDLE_R0TO32                                                                                              \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
  "%24, %25, %26, %27, %28, %29, %30, %31"
#define HEDDLE_R32TO40 "%32, %33, %34, %35, %36, %37, %38, %39"
#define HEDDLE_R32TO48 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define HEDDLE_R32TO64                                                                                             \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, " \
  "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// d = a * b, plus d where `add`; both operands in shared memory.
#define HEDDLE_SHARED_BY_SHARED(type, columns, registers, a, b, add, ...)                                \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " add ", 0;\nwgmma.mma_async.sync.aligned.m64n" columns \
               "k16.f32." type "." type " {" registers "}, " a ", " b ", p, 1, 1, 0, 0;\n}\n"            \
               : __VA_ARGS__                                                                             \
               : "l"(left), "l"(right), "r"(static_cast<int>(kAdd)))
// d += a * b; a in registers, b transposed in shared memory.
#define HEDDLE_REGISTERS_BY_SHARED(type, columns, registers, a, b, ...)                                            \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\nwgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type \
               "." type " {" registers "}, {" a "}, " b ", p, 1, 1, 1;\n}\n"                                       \
               : __VA_ARGS__                                                                                       \
               : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "l"(right))

// d = left * right^T, plus d where kAdd. Both have rows of 64 elements, of which the product takes 16; right has one
// row for each of the 8 * kTiles columns of d.
template <typename T, bool kAdd, int kTiles>
__device__ __forceinline__ void MultiplyTransposed(float (&d)[kTiles][4], uint64_t left, uint64_t right) {
  static_assert(kTiles == 10 || kTiles == 16);
  constexpr bool kHalf = std::is_same_v<T, __half>;
  if constexpr (kTiles == 10 && kHalf) {
    HEDDLE_SHARED_BY_SHARED("f16", "80", HEDDLE_R0TO32 ", " HEDDLE_R32TO40, "%40", "%41", "%42", HEDDLE_D8(0),
                            HEDDLE_D2(8));
  } else if constexpr (kTiles == 10 && !kHalf) {
    HEDDLE_SHARED_BY_SHARED("bf16", "80", HEDDLE_R0TO32 ", " HEDDLE_R32TO40, "%40", "%41", "%42", HEDDLE_D8(0),
                            HEDDLE_D2(8));
  } else if constexpr (kTiles == 16 && kHalf) {
    HEDDLE_SHARED_BY_SHARED("f16", "128", HEDDLE_R0TO32 ", " HEDDLE_R32TO64, "%64", "%65", "%66", HEDDLE_D8(0),
                            HEDDLE_D8(8));
  } else if constexpr (kTiles == 16 && !kHalf) {
    HEDDLE_SHARED_BY_SHARED("bf16", "128", HEDDLE_R0TO32 ", " HEDDLE_R32TO64, "%64", "%65", "%66", HEDDLE_D8(0),
                            HEDDLE_D8(8));
  }
}

// d += left * right. left is a warp's 16 rows and columns as in MultiplyAdd16x8x16; right has 16 rows of 8 * kTiles
// elements.
template <typename T, int kTiles>
__device__ __forceinline__ void MultiplyAdd(float (&d)[kTiles][4], const uint32_t (&left)[4], uint64_t right) {
  static_assert(kTiles == 8 || kTiles == 12 || kTiles == 16);
  constexpr bool kHalf = std::is_same_v<T, __half>;
  if constexpr (kTiles == 8 && kHalf) {
    HEDDLE_REGISTERS_BY_SHARED("f16", "64", HEDDLE_R0TO32, "%32, %33, %34, %35", "%36", HEDDLE_D8(0));
  } else if constexpr (kTiles == 8 && !kHalf) {
    HEDDLE_REGISTERS_BY_SHARED("bf16", "64", HEDDLE_R0TO32, "%32, %33, %34, %35", "%36", HEDDLE_D8(0));
  } else if constexpr (kTiles == 12 && kHalf) {
    HEDDLE_REGISTERS_BY_SHARED("f16", "96", HEDDLE_R0TO32 ", " HEDDLE_R32TO48, "%48, %49, %50, %51", "%52",
                               HEDDLE_D8(0), HEDDLE_D4(8));
  } else if constexpr (kTiles == 12 && !kHalf) {
    HEDDLE_REGISTERS_BY_SHARED("bf16", "96", HEDDLE_R0TO32 ", " HEDDLE_R32TO48, "%48, %49, %50, %51", "%52",
                               HEDDLE_D8(0), HEDDLE_D4(8));
  } else if constexpr (kTiles == 16 && kHalf) {
    HEDDLE_REGISTERS_BY_SHARED("f16", "128", HEDDLE_R0TO32 ", " HEDDLE_R32TO64, "%64, %65, %66, %67", "%68",
                               HEDDLE_D8(0), HEDDLE_D8(8));
  } else if constexpr (kTiles == 16 && !kHalf) {
    HEDDLE_REGISTERS_BY_SHARED("bf16", "128", HEDDLE_R0TO32 ", " HEDDLE_R32TO64, "%64, %65, %66, %67", "%68",
                               HEDDLE_D8(0), HEDDLE_D8(8));
  }
}

#undef HEDDLE_D1
#undef HEDDLE_D2
#undef HEDDLE_D4
#undef HEDDLE_D8
#undef HEDDLE_R0TO32
#undef HEDDLE_R32TO40
#undef HEDDLE_R32TO48
#undef HEDDLE_R32TO64
#undef HEDDLE_SHARED_BY_SHARED
#undef HEDDLE_REGISTERS_BY_SHARED

}  // namespace heddle::cuda::hopper
