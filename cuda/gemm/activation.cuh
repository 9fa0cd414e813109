// Activations of gated products, in float32.
#pragma once

#include "heddle_cuda.h"

namespace heddle::cuda {

__device__ __forceinline__ float Silu(float x) { return x / (1.0f + expf(-x)); }

__device__ __forceinline__ float GeluTanh(float x) {
  constexpr float kSqrtTwoOverPi = 0.7978845608028654f;
  return 0.5f * x * (1.0f + tanhf(kSqrtTwoOverPi * (x + 0.044715f * x * x * x)));
}

__device__ __forceinline__ float Gelu(float x) {
  constexpr float kSqrtHalf = 0.7071067811865476f;
  return 0.5f * x * (1.0f + erff(x * kSqrtHalf));
}

__device__ __forceinline__ float Activate(HeddleCudaActivation activation, float x) {
  if (activation == kHeddleCudaSilu) return Silu(x);
  return activation == kHeddleCudaGeluTanh ? GeluTanh(x) : Gelu(x);
}

}  // namespace heddle::cuda
