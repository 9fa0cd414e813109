// Elements of an int8 cache as the 16-bit floats that tensor products take.
#pragma once

#include "attention/common.cuh"

namespace heddle::cuda {

// Four int8 times `scale` as floats. `offset` is -kInt8Offset * scale.
inline constexpr float kInt8Offset = 32768 + 128;
__device__ __forceinline__ float4 ScaledInt8(uint32_t values, float scale, float offset) {
  // In bits 8 to 15 of 2^15 a byte counts ones. The offset is rounded to 1/500 of the scale, which is what differs from
  // the exact product.
  const uint32_t shifted = values ^ 0x80808080u;
  const auto float_of = [&](uint32_t selector) {
    return fmaf(__uint_as_float(__byte_perm(shifted, 0x47000000u, selector)), scale, offset);
  };
  return make_float4(float_of(0x7404), float_of(0x7414), float_of(0x7424), float_of(0x7434));
}

// Eight int8 times `scale`, rounded to T, in their order.
template <typename T>
__device__ __forceinline__ uint4 ScaledFloats(uint2 values, float scale) {
  const float offset = -kInt8Offset * scale;
  const float4 low = ScaledInt8(values.x, scale, offset);
  const float4 high = ScaledInt8(values.y, scale, offset);
  return make_uint4(PackPair<T>(low.x, low.y), PackPair<T>(low.z, low.w), PackPair<T>(high.x, high.y),
                    PackPair<T>(high.z, high.w));
}

}  // namespace heddle::cuda
