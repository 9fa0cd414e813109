// Online softmax over products of tensor-core instructions, as they lie in registers.
//
// A fragment float[n][4] is a warp's share of 16 rows by 8 * n columns: lane l has columns 8 * j + 2 * (l % 4) and the
// next in [j], of row l / 4 in elements 0 and 1, of row l / 4 + 8 in elements 2 and 3. "Row 0" and "row 1" below are
// these two.
#pragma once

#include <cmath>
#include <cstdint>

#include "attention/common.cuh"

namespace heddle::cuda {

inline constexpr float kMinusInfinity = -INFINITY;

__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Over the four lanes that share a row.
__device__ __forceinline__ float QuadMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ __forceinline__ float QuadSum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

struct SoftmaxRows {
  float max[2] = {kMinusInfinity, kMinusInfinity};  // before the factor
  float sum[2] = {0, 0};                            // over this lane's columns
};

// The keys [begin[i], end[i]) that row i sees, counted from the tile's first.
struct VisibleKeys {
  int begin[2];
  int end[2];
};

// Scores of other keys become minus infinity, whatever they were.
template <int kTiles>
__device__ __forceinline__ void Mask(float (&scores)[kTiles][4], const VisibleKeys& keys) {
  const int first_column = 2 * (threadIdx.x % 4);
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const int begin = keys.begin[row] - first_column;
    const int end = keys.end[row] - first_column;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int column = 8 * j + e;
        if (column < begin || column >= end) scores[j][2 * row + e] = kMinusInfinity;
      }
    }
  }
}

// Scores become probabilities, exp2(factor * (score - the row's largest so far)); what was computed with the largest
// before is to be multiplied by `rescale`. The factor is positive.
template <int kTiles>
__device__ __forceinline__ void Exponentiate(float (&scores)[kTiles][4], float factor, SoftmaxRows& rows,
                                             float (&rescale)[2]) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    float max = rows.max[row];
#pragma unroll
    for (int j = 0; j < kTiles; ++j) max = fmaxf(max, fmaxf(scores[j][2 * row], scores[j][2 * row + 1]));
    max = QuadMax(max);
    // A row that has seen no key yet: minus infinity less itself would be NaN.
    const float subtrahend = max == kMinusInfinity ? 0.0f : max * factor;
    rescale[row] = Exp2(fmaf(rows.max[row], factor, -subtrahend));
    rows.max[row] = max;
    float sum = rows.sum[row] * rescale[row];
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int e = 2 * row; e < 2 * row + 2; ++e) {
        scores[j][e] = Exp2(fmaf(scores[j][e], factor, -subtrahend));
        sum += scores[j][e];
      }
    }
    rows.sum[row] = sum;
  }
}

template <int kTiles>
__device__ __forceinline__ void Rescale(float (&x)[kTiles][4], const float (&rescale)[2]) {
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) x[j][e] *= rescale[e / 2];
  }
}

// As the left factor of the next product, 16 columns in each [i].
template <typename T, int kTiles>
__device__ __forceinline__ void PackFragment(uint32_t (&packed)[kTiles / 2][4], const float (&x)[kTiles][4]) {
#pragma unroll
  for (int i = 0; i < kTiles / 2; ++i) {
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int e = 2 * (part % 2);
      packed[i][part] = PackPair<T>(x[2 * i + part / 2][e], x[2 * i + part / 2][e + 1]);
    }
  }
}

// Transposes the 4x4 matrix whose column is what a lane of four neighbours holds.
__device__ __forceinline__ void TransposeQuad(uint32_t (&x)[4]) {
  const bool odd = threadIdx.x % 2 != 0;
  const bool high = threadIdx.x % 4 >= 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? x[i] : x[i + 1], 1);
    x[i] = odd ? got : x[i];
    x[i + 1] = odd ? x[i + 1] : got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t got = __shfl_xor_sync(0xffffffffu, high ? x[i] : x[i + 2], 2);
    x[i] = high ? got : x[i];
    x[i + 2] = high ? x[i + 2] : got;
  }
}

// Row kRow of x divided by its sum, to `out` unless that is null; 16 bytes a lane and access.
template <typename T, int kRow, int kTiles>
__device__ __forceinline__ void StoreNormalized(T* out, const float (&x)[kTiles][4], const SoftmaxRows& rows) {
  const float factor = 1.0f / QuadSum(rows.sum[kRow]);
#pragma unroll
  for (int j = 0; j < kTiles; j += 4) {
    uint32_t packed[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) packed[i] = PackPair<T>(x[j + i][2 * kRow] * factor, x[j + i][2 * kRow + 1] * factor);
    TransposeQuad(packed);
    if (out != nullptr) {
      *reinterpret_cast<uint4*>(out + 8 * (j + threadIdx.x % 4)) =
          make_uint4(packed[0], packed[1], packed[2], packed[3]);
    }
  }
}

}  // namespace heddle::cuda
