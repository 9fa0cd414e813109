// Products of int8 values as 16-bit floats, 16 stored bytes of 16 rows at a time: what weight-only products consist of,
// and what outliers of a quantised x are multiplied by.
//
// The values become floats in registers. Every int8 is one, exactly, of either 16-bit type.
#pragma once

#include "common/mma.cuh"
#include "gemm/gemv_sums.cuh"

namespace heddle::cuda {

// Four int8 as floats, two a register, in their order.
template <typename T>
__device__ __forceinline__ uint2 Int8ToFloats(uint32_t values);

// As the low bits of 1024 + (value + 128), which has room for eight.
template <>
__device__ __forceinline__ uint2 Int8ToFloats<__half>(uint32_t values) {
  const auto subtract = [](uint32_t a) {
    constexpr uint32_t kOffset = 0x64806480;  // 1152
    uint32_t difference;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(difference) : "r"(a), "r"(kOffset));
    return difference;
  };
  const uint32_t shifted = values ^ 0x80808080u;
  return {subtract(__byte_perm(shifted, 0x64646464u, 0x4140)), subtract(__byte_perm(shifted, 0x64646464u, 0x4342))};
}

// A bfloat16 has room for seven bits: 128 + those, less 128 or, where the value is negative, 256.
template <>
__device__ __forceinline__ uint2 Int8ToFloats<__nv_bfloat16>(uint32_t values) {
  const auto difference = [](uint32_t bits) {
    const uint32_t low = bits & 0xff7fff7fu;
    const uint32_t sign = bits & 0xff80ff80u;
    constexpr uint32_t kMinusOne = 0xbf80bf80;
    uint32_t value;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(value) : "r"(sign), "r"(kMinusOne), "r"(low));
    return value;
  };
  return {difference(__byte_perm(values, 0x43434343u, 0x4140)), difference(__byte_perm(values, 0x43434343u, 0x4342))};
}

// Dense: a unit is 16 columns, and so are its columns of x. Lane 4 g + j has four neighbouring values of rows g and
// g + 8, which mma takes for columns 2 j, 2 j + 1, 2 j + 8 and 2 j + 9; it is given x in the same order.
template <typename Float>
class DenseInt8Units {
 public:
  using T = Float;
  static constexpr int kColumns = 16;
  static constexpr int kMetadataUnits = 0;

  struct Metadata {};
  // Of the stage's units `unit` and the next.
  static __device__ __forceinline__ Metadata MetadataOfPair(uint32_t, int) { return {}; }
  static __device__ __forceinline__ Metadata MetadataOf(uint32_t, int) { return {}; }

  // Adds the products of values `low` (row g) and `high` (row g + 8) and the unit's columns of x, which begin at `x` in
  // row g of x. kSecond: the metadata are those of the pair, and the unit is its second.
  template <int kSecond>
  static __device__ __forceinline__ void Add(float (&sums)[4], uint32_t low, uint32_t high, uint32_t x, Metadata) {
    const uint2 a = Int8ToFloats<T>(low);
    const uint2 b = Int8ToFloats<T>(high);
    const uint2 columns = LoadSharedPair(x + threadIdx.x % 4 * 8);
    MultiplyAdd16x8x16<T>(sums, {a.x, b.x, a.y, b.y}, columns.x, columns.y);
  }
};

}  // namespace heddle::cuda
