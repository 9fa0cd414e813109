// Int8 values as 16-bit floats, exactly, but of bfloat16 for a power of two.
#pragma once

#include <type_traits>

#include "common/numeric.cuh"

namespace heddle::cuda {

// What Int8PairToFloats<T> gives multiples of.
template <typename T>
inline constexpr float kInt8FloatUnit = std::is_same_v<T, __half> ? 1.0f : 0x1p-6f;

// Bytes kFirst and kSecond of `values`, which are int8, as a pair of T times that unit.
template <typename T, int kFirst, int kSecond>
__device__ __forceinline__ uint32_t Int8PairToFloats(uint32_t values) {
  constexpr uint32_t kSelector = 0x4040 | kSecond << 8 | kFirst;
  const uint32_t raised = values ^ 0x80808080u;  // by 128
  uint32_t pair;
  if constexpr (std::is_same_v<T, __half>) {
    // The low bits of 1024 + those count ones.
    constexpr uint32_t kOffset = 0x64806480;  // 1152
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(__byte_perm(raised, 0x64646464u, kSelector)), "r"(kOffset));
  } else {
    // With a byte of zeros above it a byte is a bfloat16 already, a multiple of 2^-133: subnormal numbers and the first
    // normal ones have the same distance. No bfloat16 brings that to 1; the largest power of two brings it to 2^-6.
    constexpr uint32_t kFactor = 0x7f007f00;  // 2^127
    constexpr uint32_t kOffset = 0xc000c000;  // -128 * 2^-6
    asm("fma.rn.bf16x2 %0, %1, %2, %3;"
        : "=r"(pair)
        : "r"(__byte_perm(raised, 0, kSelector)), "r"(kFactor), "r"(kOffset));
  }
  return pair;
}

// Four int8 as floats times the unit, two a register, in their order.
template <typename T>
__device__ __forceinline__ uint2 Int8ToFloats(uint32_t values) {
  return {Int8PairToFloats<T, 0, 1>(values), Int8PairToFloats<T, 2, 3>(values)};
}

}  // namespace heddle::cuda
