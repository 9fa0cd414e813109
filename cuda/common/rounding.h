// Division and multiples, rounded up. Of what is not negative.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace heddle::cuda {

__host__ __device__ constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
__host__ __device__ constexpr int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

}  // namespace heddle::cuda
