// Int8 values as 16-bit floats. Every int8 is one, exactly, of either type.
#pragma once

#include <type_traits>

#include "common/numeric.cuh"

namespace heddle::cuda {

// Bytes kFirst and kSecond of `values`, which are int8, as a pair of T.
template <typename T, int kFirst, int kSecond>
__device__ __forceinline__ uint32_t Int8PairToFloats(uint32_t values) {
  constexpr uint32_t kSelector = 0x4040 | kSecond << 8 | kFirst;
  uint32_t pair;
  if constexpr (std::is_same_v<T, __half>) {
    // As the low bits of 1024 + (value + 128), which has room for eight.
    constexpr uint32_t kOffset = 0x64806480;  // 1152
    const uint32_t bits = __byte_perm(values ^ 0x80808080u, 0x64646464u, kSelector);
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(bits), "r"(kOffset));
  } else {
    // A bfloat16 has room for seven bits: 128 + those, less 128 or, where the value is negative, 256.
    constexpr uint32_t kMinusOne = 0xbf80bf80;
    const uint32_t bits = __byte_perm(values, 0x43434343u, kSelector);
    asm("fma.rn.bf16x2 %0, %1, %2, %3;"
        : "=r"(pair)
        : "r"(bits & 0xff80ff80u), "r"(kMinusOne), "r"(bits & 0xff7fff7fu));
  }
  return pair;
}

// Four int8 as floats, two a register, in their order.
template <typename T>
__device__ __forceinline__ uint2 Int8ToFloats(uint32_t values) {
  return {Int8PairToFloats<T, 0, 1>(values), Int8PairToFloats<T, 2, 3>(values)};
}

}  // namespace heddle::cuda
