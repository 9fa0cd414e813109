// Types of storage, and 16 bytes of floats at a time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "common/error.h"

namespace heddle::cuda {

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(__half x) { return __half2float(x); }
__device__ __forceinline__ float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float ToFloat(int8_t x) { return static_cast<float>(x); }

// Rounds to nearest, ties to even.
template <typename T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __half FromFloat<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// 16 bytes of T, loaded and stored at once.
template <typename T>
struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(T);
  T values[kSize];
};

template <typename T>
constexpr HeddleCudaDType kDTypeOf = kHeddleCudaFloat32;
template <>
inline constexpr HeddleCudaDType kDTypeOf<__half> = kHeddleCudaFloat16;
template <>
inline constexpr HeddleCudaDType kDTypeOf<__nv_bfloat16> = kHeddleCudaBFloat16;

// Calls body.operator()<T>() for the type that `dtype` names.
template <typename Body>
void DispatchFloat(HeddleCudaDType dtype, const Body& body) {
  switch (dtype) {
    case kHeddleCudaFloat32:
      return body.template operator()<float>();
    case kHeddleCudaFloat16:
      return body.template operator()<__half>();
    case kHeddleCudaBFloat16:
      return body.template operator()<__nv_bfloat16>();
    case kHeddleCudaInt8:
      break;
  }
  Fail(kHeddleCudaInvalid, "a dtype that is none");
}

// Sum over the 32 lanes of a warp, the same in each.
__device__ __forceinline__ float WarpSum(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}

__device__ __forceinline__ float WarpMax(float x) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

// Sum over a block of at most 1024 threads, a multiple of 32, the same in each. `shared` holds 32 floats that nobody
// else uses; ends with a barrier.
__device__ __forceinline__ float BlockSum(float x, float* shared) {
  const int warp = threadIdx.x / 32;
  x = WarpSum(x);
  if (threadIdx.x % 32 == 0) shared[warp] = x;
  __syncthreads();
  const int num_warps = (blockDim.x + 31) / 32;
  x = threadIdx.x % 32 < num_warps ? shared[threadIdx.x % 32] : 0.0f;
  x = WarpSum(x);
  __syncthreads();
  return x;
}

}  // namespace heddle::cuda
