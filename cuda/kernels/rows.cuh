// What kernels over the rows of matrices share: several elements of a row at a time, and which thread has which.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/checks.h"
#include "common/numeric.cuh"

namespace heddle::cuda {

// Elements that a thread takes at once where rows allow it: 16 bytes of a 16-bit type, twice 16 of float32.
constexpr int kVectorSize = 8;

// kSize elements from `from` on, as floats: in accesses of 16 bytes when kSize is kVectorSize, and then `from` must lie
// on 16 bytes.
template <int kSize, typename T>
__device__ __forceinline__ void LoadFloats(const T* from, float (&to)[kSize]) {
  if constexpr (kSize % Pack<T>::kSize == 0) {
#pragma unroll
    for (int i = 0; i < kSize; i += Pack<T>::kSize) {
      const Pack<T> pack = *reinterpret_cast<const Pack<T>*>(from + i);
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j) to[i + j] = ToFloat(pack.values[j]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kSize; ++i) to[i] = ToFloat(from[i]);
  }
}

// The counterpart of LoadFloats; rounds to T.
template <int kSize, typename T>
__device__ __forceinline__ void StoreFloats(const float (&from)[kSize], T* to) {
  if constexpr (kSize % Pack<T>::kSize == 0) {
#pragma unroll
    for (int i = 0; i < kSize; i += Pack<T>::kSize) {
      Pack<T> pack;
#pragma unroll
      for (int j = 0; j < Pack<T>::kSize; ++j) pack.values[j] = FromFloat<T>(from[i + j]);
      *reinterpret_cast<Pack<T>*>(to + i) = pack;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kSize; ++i) to[i] = FromFloat<T>(from[i]);
  }
}

// Calls body.operator()<kSize>() with kVectorSize or 1.
template <typename Body>
void DispatchVectors(bool vectors, const Body& body) {
  if (vectors) return body.template operator()<kVectorSize>();
  body.template operator()<1>();
}

struct LaunchShape {
  dim3 grid;
  dim3 block;
};

// Threads for `num_rows` rows of `size` elements, kSize of them a thread: columns along x, rows along y. Both positive.
template <int kSize>
LaunchShape RowsShape(int64_t num_rows, int64_t size) {
  constexpr int64_t kMaxThreads = 256;
  constexpr int64_t kMaxGridY = 65535;
  const int64_t num_vectors = size / kSize;
  const int64_t threads = std::min(kMaxThreads, (num_vectors + 31) / 32 * 32);
  const int64_t columns = (num_vectors + threads - 1) / threads;
  Require(columns <= INT32_MAX, "rows of more elements than a grid has threads");
  return {dim3(static_cast<unsigned>(columns), static_cast<unsigned>(std::min(num_rows, kMaxGridY))),
          dim3(static_cast<unsigned>(threads))};
}

// The calling thread's first column in the shape of RowsShape; not below the row's size where it has none.
template <int kSize>
__device__ __forceinline__ int64_t MyColumn() {
  return (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) * kSize;
}

// Calls body(row) for the calling thread's rows in the shape of RowsShape.
template <typename Body>
__device__ __forceinline__ void ForMyRows(int64_t num_rows, const Body& body) {
  for (int64_t row = blockIdx.y; row < num_rows; row += gridDim.y) body(row);
}

}  // namespace heddle::cuda
