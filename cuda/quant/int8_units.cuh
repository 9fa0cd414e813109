// Products of int8 values as 16-bit floats, times kInt8FloatUnit of their type, 16 stored bytes of 16 rows at a time:
// what weight-only products consist of, and what outliers of a quantised x are multiplied by.
//
// The values become floats in registers.
#pragma once

#include "common/int8_floats.cuh"
#include "common/mma.cuh"
#include "gemm/gemv_sums.cuh"

namespace heddle::cuda {

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

  // Adds kInt8FloatUnit times the products of values `low` (row g) and `high` (row g + 8) and the unit's columns of x,
  // which begin at `x` in row g of x. kSecond: the metadata are those of the pair, and the unit is its second.
  template <int kSecond>
  static __device__ __forceinline__ void Add(float (&sums)[4], uint32_t low, uint32_t high, uint32_t x, Metadata) {
    const uint2 a = Int8ToFloats<T>(low);
    const uint2 b = Int8ToFloats<T>(high);
    const uint2 columns = LoadSharedPair(x + threadIdx.x % 4 * 8);
    MultiplyAdd16x8x16<T>(sums, {a.x, b.x, a.y, b.y}, columns.x, columns.y);
  }
};

}  // namespace heddle::cuda
