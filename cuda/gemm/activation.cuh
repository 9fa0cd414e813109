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

// To some 1e-6 of the result, which is to be rounded to 16 bits, in half the instructions.
__device__ __forceinline__ float ActivateRoughly(HeddleCudaActivation activation, float x) {
  if (activation == kHeddleCudaSilu) return __fdividef(x, 1.0f + __expf(-x));
  if (activation == kHeddleCudaGelu) return Gelu(x);
  // 0.5 (1 + tanh(u)) = 1 / (1 + exp(-2 u))
  constexpr float kTwoSqrtTwoOverPi = 1.5957691216057308f;
  return __fdividef(x, 1.0f + __expf(-kTwoSqrtTwoOverPi * (x + 0.044715f * x * x * x)));
}

}  // namespace heddle::cuda
