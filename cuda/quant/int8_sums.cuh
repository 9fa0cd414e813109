// Sums of 16 rows of int8 values times up to 8 rows of x, in the registers of a warp: of x as it is, and of x as int8
// with outliers.
//
// `Units` says how values are stored and how some of them are multiplied by floats: DenseInt8Units, SparseInt8Units.
#pragma once

#include "gemm/gemv_sums.cuh"
#include "quant/digit_x.cuh"
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

// Of a stage with rows of int8, in two sums: products that wait for each other would take longer than they need to.
template <typename Units>
class IntegerSums {
 public:
  __device__ __forceinline__ void Add(const WeightStage& stage, const SharedX& x) {
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
          MultiplyAdd16x8x32(sums_[i / 2], a, b[i], b[i + 1]);
        }
      }
    } else {
#pragma unroll
      for (int unit = 0; unit < kChunkUnits; unit += 2) {
        uint32_t a[4];
        uint32_t b[4];
        LoadMatrices(b, x_row + unit * 32);
        load(a, unit);
        MultiplyAddSparse16x8x64(sums_[unit / 2 % 2], a, b, Units::MetadataOfInt8Pair(stage.metadata, unit));
      }
    }
  }

  // As GroupSums::Get has them.
  __device__ __forceinline__ int32_t operator[](int i) const { return sums_[0][i] + sums_[1][i]; }

 private:
  int32_t sums_[2][4] = {};
};

// One row of x as digits, whose sums are exact.
template <typename Units>
class DigitSums {
 public:
  using Chunk = typename DigitX<typename Units::T, Units::kColumns>::Chunk;

  __device__ __forceinline__ void Add(const WeightStage& stage, const Chunk& x) {
    sums_.Add(stage, x.digits);
    unit_ = x.unit;
  }

  // As GroupSums::Get, of one row. By all lanes of the warp.
  __device__ __forceinline__ void Get(float (&sums)[4]) const {
    static_assert(kDigits == 3);
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      // Lane 4 g has digits 0 and 1, the next one has digit 2.
      float sum = static_cast<float>(sums_[i]);
      sum = threadIdx.x % 2 == 0 ? fmaf(static_cast<float>(sums_[i + 1]), 0x1p8f, sum) : sum * 0x1p16f;
      sums[i] = (sum + __shfl_xor_sync(0xffffffffu, sum, 1)) * unit_;
      sums[i + 1] = 0;
    }
  }

 private:
  IntegerSums<Units> sums_;
  float unit_ = 0;
};

// x as int8, and outliers of it as they are.
template <typename Units>
class QuantizedSums {
 public:
  using Chunk = typename QuantizedX<typename Units::T, Units::kColumns>::Chunk;

  __device__ __forceinline__ void Add(const WeightStage& stage, const Chunk& x) {
    inliers_.Add(stage, x.quantized);
    if (const uint32_t units = x.UnitsWithOutliers(); units != 0) AddOutliers(stage, x, units);
  }

  __device__ __forceinline__ void Get(QuantizedSum (&sums)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] = {inliers_[i], outliers_[i] * kFromUnit};
  }

 private:
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
  IntegerSums<Units> inliers_;
  float outliers_[4] = {};
};

}  // namespace heddle::cuda
