// Products of 2:4 int8 values, for the sums of quant/int8_sums.cuh.
#pragma once

#include "quant/int8_units.cuh"

namespace heddle::cuda {

// A unit of 16 stored values is 32 columns. Lane 4 g + j has the values of its groups 2 j and 2 j + 1, of rows g and
// g + 8, which mma takes for groups j and 4 + j; metadata and x go in in the same order: even groups, then odd ones.
template <typename Float>
class SparseInt8Units {
 public:
  using T = Float;
  static constexpr int kColumns = 32;
  static constexpr int kMetadataUnits = 2;
  using Metadata = uint32_t;

  static __device__ __forceinline__ Metadata MetadataOfPair(uint32_t metadata, int unit) {
    return MetadataOf(metadata, unit + threadIdx.x % 4 / 2);
  }

  static __device__ __forceinline__ Metadata MetadataOf(uint32_t metadata, int unit) {
    const int row = threadIdx.x % 32 / 4;
    const uint32_t low = LoadSharedWord(Place(metadata, row, unit));
    const uint32_t high = LoadSharedWord(Place(metadata, row + 8, unit));
    // Of each byte the lower nibble, or in odd lanes the upper one.
    const int shift = threadIdx.x % 2 * 4;
    const uint32_t even_bytes = __byte_perm(low, high, 0x6420) >> shift;
    const uint32_t odd_bytes = __byte_perm(low, high, 0x7531) << (4 - shift);
    return (even_bytes & 0x0f0f0f0fu) | (odd_bytes & 0xf0f0f0f0u);
  }

  // Of a product of int8, two units at a time.
  static __device__ __forceinline__ uint32_t MetadataOfInt8Pair(uint32_t metadata, int unit) {
    const int lane = threadIdx.x % 32;
    return LoadSharedWord(Place(metadata, lane / 4 + lane % 2 * 8, unit + lane % 4 / 2));
  }

  // As DenseInt8Units::Add.
  template <int kSecond>
  static __device__ __forceinline__ void Add(float (&sums)[4], uint32_t low, uint32_t high, uint32_t x,
                                             Metadata metadata) {
    const uint2 a = Int8ToFloats<T>(low);
    const uint2 b = Int8ToFloats<T>(high);
    const uint32_t from = x + threadIdx.x % 4 / 2 * 16 + threadIdx.x % 2 * 4;
    MultiplyAddSparse16x8x32<T, kSecond>(
        sums, {a.x, b.x, a.y, b.y},
        {LoadSharedWord(from), LoadSharedWord(from + 32), LoadSharedWord(from + 8), LoadSharedWord(from + 40)},
        metadata);
  }

 private:
  // Where the four bytes of a unit lie.
  static __device__ __forceinline__ uint32_t Place(uint32_t metadata, int row, int unit) {
    return metadata + row * kMetadataUnits * 16 + unit * 4;
  }
};

}  // namespace heddle::cuda
