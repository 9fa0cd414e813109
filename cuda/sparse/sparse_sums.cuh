// Sums of one group of 2:4 values of x's type, by sparse mma.
#pragma once

#include "common/mma.cuh"
#include "gemm/gemv_sums.cuh"

namespace heddle::cuda {

template <typename T>
class SparseSums {
 public:
  __device__ __forceinline__ void Add(const WeightStage& stage, const SharedX& x) {
    const int lane = threadIdx.x % 32;
    const uint32_t x_row = x.Row(lane % 8) + lane / 8 * 16;
#pragma unroll
    for (int unit = 0; unit < kChunkUnits; unit += 4) {
      const uint32_t metadata = MetadataOf(stage.metadata + unit * 2);
      AddPair<0>(stage.values, unit, x_row, metadata);
      AddPair<1>(stage.values, unit + 2, x_row, metadata);
    }
  }

  // As GroupSums::Get.
  __device__ __forceinline__ void Get(float (&sums)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] = sums_[i];
  }

 private:
  // Of 64 columns, whose metadata, 8 bytes of each row, begin at `from`: lane 4 g + j has the j-th 16 of rows g and g
  // + 8.
  static __device__ __forceinline__ uint32_t MetadataOf(uint32_t from) {
    const int j = threadIdx.x % 4;
    const uint32_t row = from + threadIdx.x % 32 / 4 * 16 + j / 2 * 4;
    return __byte_perm(LoadSharedWord(row), LoadSharedWord(row + 8 * 16), j % 2 == 0 ? 0x5410 : 0x7632);
  }

  // Two units, 32 columns.
  template <int kHalf>
  __device__ __forceinline__ void AddPair(uint32_t values, int unit, uint32_t x_row, uint32_t metadata) {
    const int lane = threadIdx.x % 32;
    uint32_t a[4];
    uint32_t b[4];
    LoadMatrices(a, values + UnitOffset(lane % 16, unit + lane / 16));
    LoadMatrices(b, x_row + unit * 32);
    MultiplyAddSparse16x8x32<T, kHalf>(sums_, a, b, metadata);
  }

  float sums_[4] = {};
};

}  // namespace heddle::cuda
