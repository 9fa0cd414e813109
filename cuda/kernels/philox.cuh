// Philox4x32-10, the counter-based random number generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers:
// as easy as 1, 2, 3" (SC 2011), and normally distributed numbers from it. No state: a number depends on its seed and
// its index only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace heddle::cuda {

__device__ __forceinline__ uint4 Philox4x32(uint4 counter, uint2 key) {
  constexpr int kRounds = 10;
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    const uint32_t high0 = __umulhi(0xd2511f53u, counter.x);
    const uint32_t high1 = __umulhi(0xcd9e8d57u, counter.z);
    counter = make_uint4(high1 ^ counter.y ^ key.x, 0xcd9e8d57u * counter.z, high0 ^ counter.w ^ key.y,
                         0xd2511f53u * counter.x);
    key.x += 0x9e3779b9u;
    key.y += 0xbb67ae85u;
  }
  return counter;
}

// Two independent normally distributed numbers (Box and Muller) from two uniform ones.
__device__ __forceinline__ float2 NormalPair(uint32_t radius_bits, uint32_t angle_bits) {
  // In [2^-33, 1]: the logarithm is finite.
  const float uniform = fmaf(static_cast<float>(radius_bits), 0x1p-32f, 0x1p-33f);
  const float radius = sqrtf(-2.0f * logf(uniform));
  float sine;
  float cosine;
  sincospif(static_cast<float>(angle_bits) * 0x1p-31f, &sine, &cosine);
  return make_float2(radius * cosine, radius * sine);
}

// Numbers 4 * group to 4 * group + 3 of a seed.
__device__ __forceinline__ float4 NormalsOfGroup(uint64_t seed, uint64_t group) {
  const uint4 bits = Philox4x32(make_uint4(static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), 0, 0),
                                make_uint2(static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)));
  const float2 first = NormalPair(bits.x, bits.y);
  const float2 second = NormalPair(bits.z, bits.w);
  return make_float4(first.x, first.y, second.x, second.y);
}

// Number `index` of a seed.
__device__ __forceinline__ float Normal(uint64_t seed, uint64_t index) {
  const float4 group = NormalsOfGroup(seed, index / 4);
  switch (index % 4) {
    case 0:
      return group.x;
    case 1:
      return group.y;
    case 2:
      return group.z;
    default:
      return group.w;
  }
}

}  // namespace heddle::cuda
