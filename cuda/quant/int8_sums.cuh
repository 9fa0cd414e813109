// Sums of 16 rows of int8 values times up to 8 rows of x, in the registers of a warp: of x as it is, and of x as int8
// with outliers.
//
// `Units` says how values are stored and how some of them are multiplied by floats: DenseInt8Units, SparseInt8Units.
#pragma once

#include "gemm/gemv_sums.cuh"
#include "quant/int8_units.cuh"
#include "quant/quantized_x.cuh"

namespace heddle::cuda {

// x as it is.
template <typename Units>
class Int8Sums {
 public:
  __device__ __forceinline__ void Add(const WeightStage& stage, const SharedX& x) {
    const int lane = threadIdx.x % 32;
    const uint32_t x_row = x.Row(lane / 4);
#pragma unroll
    for (int unit = 0; unit < kChunkUnits; unit += 2) {
      constexpr int kUnitBytes = Units::kColumns * 2;
      uint32_t a[4];
      LoadMatrices(a, stage.values + UnitOffset(lane % 16, unit + lane / 16));
      const auto metadata = Units::MetadataOfPair(stage.metadata, unit);
      Units::template Add<0>(even_, a[0], a[1], x_row + unit * kUnitBytes, metadata);
      Units::template Add<1>(odd_, a[2], a[3], x_row + (unit + 1) * kUnitBytes, metadata);
    }
  }

  // As GroupSums::Get.
  __device__ __forceinline__ void Get(float (&sums)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] = (even_[i] + odd_[i]) * kFromUnit;
  }

 private:
  static constexpr float kFromUnit = 1 / kInt8FloatUnit<typename Units::T>;
  // Of every other unit: products that wait for each other would not keep up with memory.
  float even_[4] = {};
  float odd_[4] = {};
};

// x as int8, and outliers of it as they are.
template <typename Units>
class QuantizedSums {
 public:
  using Chunk = typename QuantizedX<typename Units::T, Units::kColumns>::Chunk;

  __device__ __forceinline__ void Add(const WeightStage& stage, const Chunk& x) {
    AddInliers(stage, x.quantized);
    if (const uint32_t units = x.UnitsWithOutliers(); units != 0) AddOutliers(stage, x, units);
  }

  __device__ __forceinline__ void Get(QuantizedSum (&sums)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] = {inliers_[i], outliers_[i] * kFromUnit};
  }

 private:
  __device__ __forceinline__ void AddInliers(const WeightStage& stage, const SharedX& x) {
    const int lane = threadIdx.x % 32;
    const uint32_t x_row = x.Row(lane % 8) + lane / 8 * 16;
    const auto load = [&](uint32_t(&a)[4], int unit) {
      LoadMatrices(a, stage.values + UnitOffset(lane % 16, unit + lane / 16));
    };
    if constexpr (Units::kMetadataUnits == 0) {
#pragma unroll
      for (int unit = 0; unit < kChunkUnits; unit += 4) {
        uint32_t b[4];
        LoadMatrices(b, x_row + unit * 16);
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
          uint32_t a[4];
          load(a, unit + i);
          MultiplyAdd16x8x32(inliers_, a, b[i], b[i + 1]);
        }
      }
    } else {
#pragma unroll
      for (int unit = 0; unit < kChunkUnits; unit += 2) {
        uint32_t a[4];
        uint32_t b[4];
        LoadMatrices(b, x_row + unit * 32);
        load(a, unit);
        MultiplyAddSparse16x8x64(inliers_, a, b, Units::MetadataOfInt8Pair(stage.metadata, unit));
      }
    }
  }

  // A few of many units, of all lanes the same: not worth much code.
  __device__ __forceinline__ void AddOutliers(const WeightStage& stage, const Chunk& x, uint32_t units) {
    const int row = threadIdx.x % 32 / 4;
    const int column = threadIdx.x % 4 * 4;
#pragma unroll 1
    for (; units != 0; units &= units - 1) {
      const int unit = __ffs(static_cast<int>(units)) - 1;
      const SharedX outliers = x.OutliersOf(unit);
      Units::template Add<0>(outliers_, LoadSharedWord(stage.values + UnitOffset(row, unit) + column),
                             LoadSharedWord(stage.values + UnitOffset(row + 8, unit) + column), outliers.Row(row),
                             Units::MetadataOf(stage.metadata, unit));
      __syncwarp();  // before OutliersOf another overwrites them
    }
  }

  static constexpr float kFromUnit = 1 / kInt8FloatUnit<typename Units::T>;
  int32_t inliers_[4] = {};
  float outliers_[4] = {};
};

}  // namespace heddle::cuda
