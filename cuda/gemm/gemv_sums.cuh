// Sums of one group: 16 weight rows times up to 8 rows of x, in the registers of a warp.
//
// Why mma.m16n8k16 (weights as A, x as B) also for one row of x. Device memory delivers about 13 bytes of weights a
// clock to an SM, whose shared memory moves 128: written once by the copy and read once, weights take 26. Rows of x
// come on top. As B, 256 weights need at most 256 bytes of x (8 rows): 6.6 bytes a clock. With FMA and four weight rows
// a lane, 8 rows of x would take 26 bytes a clock as bfloat16, and each weight 8 FMA and a conversion, half of the
// issue slots. With mma it is two instructions for 256 weights, whatever the number of rows, and a row gets the same
// bits alone and beside others.
#pragma once

#include "common/mma.cuh"
#include "common/shared_memory.cuh"
#include "gemm/gemv_arguments.h"

namespace heddle::cuda {

// Rows of x in shared memory, from what the warp's chunk is multiplied by on. Lanes that stand for more rows than there
// are repeat the last one, and what comes of it is not looked at.
struct SharedX {
  uint32_t address;
  int pitch;
  int num_rows;

  __device__ __forceinline__ uint32_t Row(int row) const { return address + min(row, num_rows - 1) * pitch; }
};

// A stage of weights in shared memory: values as UnitOffset places them and, of 2:4, their metadata, row after row.
struct WeightStage {
  uint32_t values;
  uint32_t metadata;
};

// Where 16-byte unit `unit` of `row` lies among a stage's values: units are permuted so that those of eight rows, which
// are read at a time, lie in different banks.
__device__ __forceinline__ int UnitOffset(int row, int unit) { return row * kChunkBytes + (unit ^ row % 8) * 16; }

template <typename T>
class GroupSums {
 public:
  // Adds the products of a stage: 16 weight rows of a chunk.
  __device__ __forceinline__ void Add(const WeightStage& stage, const SharedX& x) {
    const int lane = threadIdx.x % 32;
    const uint32_t x_row = x.Row(lane % 8) + lane / 8 * 16;
#pragma unroll
    for (int unit = 0; unit < kChunkUnits; unit += 4) {
      uint32_t b[4];
      LoadMatrices(b, x_row + unit * 16);
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        uint32_t a[4];
        LoadMatrices(a, stage.values + UnitOffset(lane % 16, unit + i + lane / 16));
        MultiplyAdd16x8x16<T>(sums_, a, b[i], b[i + 1]);
      }
    }
  }

  // What lane 4 g + j holds: weight rows g and g + 8 times rows 2 j and 2 j + 1 of x, as {g, 2 j}, {g, 2 j + 1},
  // {g + 8, 2 j}, {g + 8, 2 j + 1}.
  __device__ __forceinline__ void Get(float (&sums)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i] = sums_[i];
  }

 private:
  float sums_[4] = {};
};

// No mma keeps all bits of float32: FMA, lane 4 g + j over a quarter of k for weight rows g and g + 8.
template <>
class GroupSums<float> {
 public:
  __device__ __forceinline__ void Add(const WeightStage& stage, const SharedX& x) {
    const int row = threadIdx.x % 32 / 4;
#pragma unroll
    for (int i = 0; i < kChunkUnits; i += 4) {
      const int unit = i + threadIdx.x % 4;
      const float4 low = LoadShared(stage.values + UnitOffset(row, unit));
      const float4 high = LoadShared(stage.values + UnitOffset(row + 8, unit));
#pragma unroll
      for (int column = 0; column < kRows; ++column) {
        if (column < x.num_rows) {
          const float4 values = LoadShared(x.address + column * x.pitch + unit * 16);
          low_[column] = AddDot(low_[column], low, values);
          high_[column] = AddDot(high_[column], high, values);
        }
      }
    }
  }

  __device__ __forceinline__ void Get(float (&sums)[4]) const {
    sums[0] = MySum(low_, 0);
    sums[1] = MySum(low_, 1);
    sums[2] = MySum(high_, 0);
    sums[3] = MySum(high_, 1);
  }

 private:
  static constexpr int kRows = 8;

  static __device__ __forceinline__ float AddDot(float sum, const float4& a, const float4& b) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
  }

  // Over lanes 4 g to 4 g + 3, of row 2 j + `second`.
  static __device__ __forceinline__ float MySum(const float (&sums)[kRows], int second) {
    const int j = threadIdx.x % 4;
    float mine = 0;
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      float sum = sums[2 * pair + second];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      if (pair == j) mine = sum;
    }
    return mine;
  }

  float low_[kRows] = {};
  float high_[kRows] = {};
};

}  // namespace heddle::cuda
