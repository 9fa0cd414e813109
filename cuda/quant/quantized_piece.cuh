// 16 neighbouring elements of a row of x, T of 16 bits, in a thread's registers, and as int8: rounded, or as digits.
#pragma once

#include <type_traits>

#include "common/numeric.cuh"

namespace heddle::cuda {

inline constexpr int kPieceColumns = 16;

// Without their signs, floats compare as integers do: these are bits without the sign.
template <typename T>
inline constexpr uint32_t kInfinityBits = std::is_same_v<T, __half> ? 0x7c00 : 0x7f80;

// What stands for the largest of a row that is not finite.
inline constexpr uint32_t kNotFinite = 0xffff;

template <typename T>
__device__ __forceinline__ float FloatOfBits(uint32_t bits) {
  return ToFloat(__builtin_bit_cast(T, static_cast<uint16_t>(bits)));
}

// From the bits of a row's largest inlier: what q and sums are multiplied by.
template <typename T>
__device__ __forceinline__ float InverseScaleOf(uint32_t max_bits) {
  const float inverse = __fdiv_rn(127.0f, FloatOfBits<T>(max_bits));
  return inverse <= 3.4e38f ? inverse : 0;
}
template <typename T>
__device__ __forceinline__ float ScaleOf(uint32_t max_bits) {
  return max_bits == kNotFinite ? __int_as_float(0x7fffffff) : __fdiv_rn(FloatOfBits<T>(max_bits), 127.0f);
}

// All ones where one of the two elements of `word` is below `outlier_bits`.
__device__ __forceinline__ uint32_t InlierMask(uint32_t word, uint32_t outlier_bits) {
  const uint32_t low = (word & 0x7fffu) < outlier_bits ? 0xffffu : 0;
  const uint32_t high = (word >> 16 & 0x7fffu) < outlier_bits ? 0xffff0000u : 0;
  return low | high;
}

// Of a number of 23 bits, each int8: sum over i of digit i * 2^(8 i).
inline constexpr int kDigits = 3;

struct DigitUnit {
  float value;    // NaN for a row that is not finite
  float inverse;  // of a unit that is
};

// Of numbers whose largest has these bits: they have less than 2^22 units.
template <typename T>
__device__ __forceinline__ DigitUnit DigitUnitOf(uint32_t max_bits) {
  constexpr uint32_t kBias = 127;
  // No less than that of 2^-96, as neither power of two is to leave float32.
  const uint32_t exponent = max(__float_as_uint(FloatOfBits<T>(max_bits)) >> 23, kBias - 96);
  const float inverse = __uint_as_float((2 * kBias + 21 - exponent) << 23);
  if (max_bits >= kInfinityBits<T>) return {__uint_as_float(0x7fffffff), 0};
  return {__uint_as_float((exponent - 21) << 23), inverse};
}

template <typename T>
struct QuantizedPiece {
  uint32_t words[kPieceColumns / 2] = {};

  // Of the row at `row`, from byte `begin` on; zeros from `row_bytes` on. Past L1, which may hold what kernels before
  // wrote over.
  __device__ __forceinline__ void Load(const unsigned char* row, int begin, int row_bytes) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int left = row_bytes - begin - half * 16;
      const unsigned char* const from = row + begin + half * 16;
      if (left >= 16) {
        Put(half, __ldcg(reinterpret_cast<const uint4*>(from)));
      } else if (left > 0) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const auto* const element = reinterpret_cast<const unsigned short*>(from) + i;
          if (i * 2 < left) words[half * 4 + i / 2] |= uint32_t{__ldcg(element)} << (i % 2 * 16);
        }
      }
    }
  }

  // The same of rows of whole 16 bytes, with less code.
  __device__ __forceinline__ void LoadUnits(const unsigned char* row, int begin, int row_bytes) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 loaded{};
      if (begin + half * 16 < row_bytes) loaded = __ldcg(reinterpret_cast<const uint4*>(row + begin + half * 16));
      Put(half, loaded);
    }
  }

  __device__ __forceinline__ uint32_t MaxBits() const {
    uint32_t most = 0;
#pragma unroll
    for (const uint32_t word : words) most = __vmaxs2(most, word & 0x7fff7fffu);
    return max(most & 0xffffu, most >> 16);
  }

  __device__ __forceinline__ QuantizedPiece InliersOf(uint32_t outlier_bits) const {
    QuantizedPiece inliers;
#pragma unroll
    for (int i = 0; i < kPieceColumns / 2; ++i) inliers.words[i] = words[i] & InlierMask(words[i], outlier_bits);
    return inliers;
  }

  // What the piece, whose largest is `bits`, counts for its row's.
  __device__ __forceinline__ uint32_t MaxInlierBits(uint32_t bits, uint32_t outlier_bits) const {
    if (bits >= kInfinityBits<T>) return kNotFinite;
    return bits < outlier_bits ? bits : InliersOf(outlier_bits).MaxBits();
  }

  // rint(element * inverse), at most 127 in size. Of inliers alone.
  __device__ __forceinline__ uint4 Quantize(float inverse) const {
    uint32_t quantized[kPieceColumns / 4];
#pragma unroll
    for (int i = 0; i < kPieceColumns / 4; ++i) {
      quantized[i] = __byte_perm(QuantizePair(words[i * 2], inverse), QuantizePair(words[i * 2 + 1], inverse), 0x5410);
    }
    return {quantized[0], quantized[1], quantized[2], quantized[3]};
  }

  // rint(element * inverse), less than 2^22 in size, as digits.
  __device__ __forceinline__ void ToDigits(float inverse, uint4 (&digits)[kDigits]) const {
    uint32_t of[kDigits][kPieceColumns / 4];
#pragma unroll
    for (int i = 0; i < kPieceColumns / 4; ++i) {
      const uint32_t a = DigitsOf(words[i * 2] & 0xffffu, inverse);
      const uint32_t b = DigitsOf(words[i * 2] >> 16, inverse);
      const uint32_t c = DigitsOf(words[i * 2 + 1] & 0xffffu, inverse);
      const uint32_t d = DigitsOf(words[i * 2 + 1] >> 16, inverse);
      const uint32_t low_ab = __byte_perm(a, b, 0x5140);
      const uint32_t low_cd = __byte_perm(c, d, 0x5140);
      of[0][i] = __byte_perm(low_ab, low_cd, 0x5410);
      of[1][i] = __byte_perm(low_ab, low_cd, 0x7632);
      of[2][i] = __byte_perm(__byte_perm(a, b, 0x0062), __byte_perm(c, d, 0x0062), 0x5410);
    }
#pragma unroll
    for (int i = 0; i < kDigits; ++i) digits[i] = {of[i][0], of[i][1], of[i][2], of[i][3]};
  }

 private:
  __device__ __forceinline__ void Put(int half, const uint4& loaded) {
    words[half * 4] = loaded.x;
    words[half * 4 + 1] = loaded.y;
    words[half * 4 + 2] = loaded.z;
    words[half * 4 + 3] = loaded.w;
  }

  static constexpr float kIntegers = 12582912.0f;  // 1.5 * 2^23: floats of this size are integers

  // The lowest first.
  static __device__ __forceinline__ uint32_t DigitsOf(uint32_t bits, float inverse) {
    // A byte that counts as negative leaves one to the next.
    constexpr uint32_t kCarries = 0x8080;
    constexpr uint32_t kBitsOfIntegers = 0x4b400000;
    return (__float_as_uint(fmaf(FloatOfBits<T>(bits), inverse, kIntegers)) + (kCarries - kBitsOfIntegers)) ^ kCarries;
  }

  // In the low two bytes.
  static __device__ __forceinline__ uint32_t QuantizePair(uint32_t word, float inverse) {
    const auto rint = [&](uint32_t bits) {
      return __float_as_uint(__fadd_rn(__fmul_rn(FloatOfBits<T>(bits), inverse), kIntegers));
    };
    return __byte_perm(rint(word & 0xffffu), rint(word >> 16), 0x0040);
  }
};

}  // namespace heddle::cuda
