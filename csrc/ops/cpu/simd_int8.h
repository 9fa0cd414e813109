// A quad: four neighbours of K of the 16 outputs of a panel, int8, and what products do with it. One implementation per
// instruction set, like ops/cpu/simd.h. All sums are exact.
#pragma once

#include "ops/cpu/simd.h"

namespace heddle::ops::cpu::HEDDLE_ISA {

// What columns of a quad come times: a byte stays where it is the top of 32 bits. Exact, and taken back exactly.
constexpr float kColumnScale = 0x1p24f;

#if defined(__AVX512F__)

struct I8x64 {
  __m512i v;
};
struct I32x16 {
  __m512i v;
};

inline I8x64 LoadQuad(const char* p) { return {_mm512_loadu_si512(p)}; }
inline I8x64 JoinQuad(__m256i lo, __m256i hi) { return {_mm512_inserti64x4(_mm512_castsi256_si512(lo), hi, 1)}; }
inline void StoreQuad(char* p, I8x64 a) { _mm512_storeu_si512(p, a.v); }
inline I32x16 LoadInt32(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline I32x16 ZeroInt32() { return {_mm512_setzero_si512()}; }
inline F32x16 ToFloat(I32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
// Neighbour j of K of each output, times kColumnScale.
inline F32x16 ScaledColumn(I8x64 a, int j) {
  const __m512i shuffle = _mm512_set4_epi32(static_cast<int>(0x0c808080u + (static_cast<unsigned>(j) << 24)),
                                            static_cast<int>(0x08808080u + (static_cast<unsigned>(j) << 24)),
                                            static_cast<int>(0x04808080u + (static_cast<unsigned>(j) << 24)),
                                            static_cast<int>(0x00808080u + (static_cast<unsigned>(j) << 24)));
  return {_mm512_cvtepi32_ps(_mm512_shuffle_epi8(a.v, shuffle))};
}

// Rounded to nearest even, and the low byte of each. REQUIRES: integers of int8 result.
inline void StoreInt8(char* p, F32x16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}
inline F32x16 LoadInt8(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
// The largest magnitude, as its bits: infinities and NaNs are above all numbers.
inline I32x16 MaxMagnitudeBits(I32x16 max, F32x16 a) {
  const __m512i bits = _mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x7fffffff));
  return {_mm512_max_epi32(max.v, bits)};
}
inline int32_t MaxLane(I32x16 a) { return _mm512_reduce_max_epi32(a.v); }
// Bit i is set where the magnitude of lane i is at least `threshold`; a NaN is not.
inline uint32_t LanesFrom(F32x16 a, float threshold) {
  return _mm512_cmp_ps_mask(_mm512_abs_ps(a.v), _mm512_set1_ps(threshold), _CMP_GE_OQ);
}
inline F32x16 ClearLanes(F32x16 a, uint32_t lanes) {
  return {_mm512_maskz_mov_ps(static_cast<__mmask16>(~lanes), a.v)};
}

#if defined(__AVX512VNNI__)

// The instruction multiplies unsigned bytes by signed ones: x is stored with this offset, which sums begin by taking
// back.
constexpr int kXOffset = 128;
inline I32x16 InitialSums(const int32_t* slice_sums) {
  return {_mm512_slli_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), LoadInt32(slice_sums).v), 7)};
}
// sums += x * quad; `x` are the four neighbours of a row. By its name, since g++ 12 copies and stores every sum of a
// tile with each step where it has the intrinsic.
inline I32x16 DotQuad(I32x16 sums, int32_t x, I8x64 quad) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums.v) : "v"(_mm512_set1_epi32(x)), "v"(quad.v));
  return sums;
}

#else

constexpr int kXOffset = 0;
inline I32x16 InitialSums(const int32_t*) { return ZeroInt32(); }
// |weight| * (x with the weight's sign): two of these products fit 16 bits, whatever the weights are.
inline I32x16 DotQuad(I32x16 sums, int32_t x, I8x64 quad) {
  const __m512i xs = _mm512_set1_epi32(x);
  const __m512i with_sign = _mm512_mask_sub_epi8(xs, _mm512_movepi8_mask(quad.v), _mm512_setzero_si512(), xs);
  const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(quad.v), with_sign);
  return {_mm512_add_epi32(sums.v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))};
}

#endif

#elif defined(__AVX2__)

struct I8x64 {
  __m256i lo;
  __m256i hi;
};
struct I32x16 {
  __m256i lo;
  __m256i hi;
};

inline __m256i LoadBytes32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline I8x64 LoadQuad(const char* p) { return {LoadBytes32(p), LoadBytes32(p + 32)}; }
inline I8x64 JoinQuad(__m256i lo, __m256i hi) { return {lo, hi}; }
inline void StoreQuad(char* p, I8x64 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), a.hi);
}
inline I32x16 LoadInt32(const int32_t* p) { return {LoadBytes32(p), LoadBytes32(p + 8)}; }
inline I32x16 ZeroInt32() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
inline F32x16 ToFloat(I32x16 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
// Neighbour j of K of each output, times kColumnScale.
inline F32x16 ScaledColumn(I8x64 a, int j) {
  const __m256i to_top = _mm256_set1_epi32(static_cast<int>(0xff000000u));
  const __m128i shift = _mm_cvtsi32_si128(24 - 8 * j);
  return {_mm256_cvtepi32_ps(_mm256_and_si256(_mm256_sll_epi32(a.lo, shift), to_top)),
          _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_sll_epi32(a.hi, shift), to_top))};
}

// Rounded to nearest even, and the low byte of each. REQUIRES: integers of int8 result.
inline void StoreInt8(char* p, F32x16 a) {
  const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
}
inline F32x16 LoadInt8(const int8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + 8))))};
}
// The largest magnitude, as its bits: infinities and NaNs are above all numbers.
inline I32x16 MaxMagnitudeBits(I32x16 max, F32x16 a) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  return {_mm256_max_epi32(max.lo, _mm256_and_si256(_mm256_castps_si256(a.lo), magnitude)),
          _mm256_max_epi32(max.hi, _mm256_and_si256(_mm256_castps_si256(a.hi), magnitude))};
}
inline int32_t MaxLane(I32x16 a) {
  alignas(32) int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), _mm256_max_epi32(a.lo, a.hi));
  int32_t max = lanes[0];
  for (const int32_t lane : lanes) max = lane > max ? lane : max;
  return max;
}
// Bit i is set where the magnitude of lane i is at least `threshold`; a NaN is not.
inline uint32_t LanesFrom(F32x16 a, float threshold) {
  const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  const __m256 limit = _mm256_set1_ps(threshold);
  const int lo = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_and_ps(a.lo, magnitude), limit, _CMP_GE_OQ));
  const int hi = _mm256_movemask_ps(_mm256_cmp_ps(_mm256_and_ps(a.hi, magnitude), limit, _CMP_GE_OQ));
  return static_cast<uint32_t>(lo | (hi << 8));
}
inline F32x16 ClearLanes(F32x16 a, uint32_t lanes) {
  float values[16];
  Store(values, a);
  for (; lanes != 0; lanes &= lanes - 1) values[__builtin_ctz(lanes)] = 0;
  return Load(values);
}

constexpr int kXOffset = 0;
inline I32x16 InitialSums(const int32_t*) { return ZeroInt32(); }
// |weight| * (x with the weight's sign): two of these products fit 16 bits, whatever the weights are.
inline __m256i DotQuad8(__m256i sums, __m256i x, __m256i quad) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(quad), _mm256_sign_epi8(x, quad));
  return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
// sums += x * quad; `x` are the four neighbours of a row.
inline I32x16 DotQuad(I32x16 sums, int32_t x, I8x64 quad) {
  const __m256i xs = _mm256_set1_epi32(x);
  return {DotQuad8(sums.lo, xs, quad.lo), DotQuad8(sums.hi, xs, quad.hi)};
}

#else  // scalar

struct I8x64 {
  int8_t v[64];
};
struct I32x16 {
  int32_t v[16];
};

inline I8x64 LoadQuad(const char* p) {
  I8x64 r;
  std::memcpy(r.v, p, sizeof(r.v));
  return r;
}
inline void StoreQuad(char* p, I8x64 a) { std::memcpy(p, a.v, sizeof(a.v)); }
inline I32x16 ZeroInt32() { return {}; }
inline F32x16 ToFloat(I32x16 a) {
  return Map([&](int i) { return static_cast<float>(a.v[i]); });
}
// Neighbour j of K of each output, times kColumnScale.
inline F32x16 ScaledColumn(const I8x64& a, int j) {
  return Map([&](int i) { return static_cast<float>(a.v[4 * i + j]) * kColumnScale; });
}

// Rounded to nearest even, and the low byte of each. REQUIRES: integers of int8 result.
inline void StoreInt8(char* p, F32x16 a) {
  const F32x16 rounded = Round(a);
  for (int i = 0; i < 16; ++i) p[i] = static_cast<char>(static_cast<int8_t>(rounded.v[i]));
}
inline F32x16 LoadInt8(const int8_t* p) {
  return Map([=](int i) { return static_cast<float>(p[i]); });
}
// The largest magnitude, as its bits: infinities and NaNs are above all numbers.
inline I32x16 MaxMagnitudeBits(I32x16 max, F32x16 a) {
  for (int i = 0; i < 16; ++i) {
    const auto bits = static_cast<int32_t>(FloatToBits(a.v[i]) & 0x7fffffffu);
    if (bits > max.v[i]) max.v[i] = bits;
  }
  return max;
}
inline int32_t MaxLane(I32x16 a) {
  int32_t max = a.v[0];
  for (const int32_t lane : a.v) max = lane > max ? lane : max;
  return max;
}
// Bit i is set where the magnitude of lane i is at least `threshold`; a NaN is not.
inline uint32_t LanesFrom(F32x16 a, float threshold) {
  uint32_t lanes = 0;
  for (int i = 0; i < 16; ++i) lanes |= (a.v[i] >= threshold || -a.v[i] >= threshold ? 1u : 0u) << i;
  return lanes;
}
inline F32x16 ClearLanes(F32x16 a, uint32_t lanes) {
  return Map([&](int i) { return (lanes >> i & 1) != 0 ? 0.0f : a.v[i]; });
}

constexpr int kXOffset = 0;
inline I32x16 InitialSums(const int32_t*) { return ZeroInt32(); }
// sums += x * quad; `x` are the four neighbours of a row.
inline I32x16 DotQuad(I32x16 sums, int32_t x, const I8x64& quad) {
  int8_t xs[4];
  std::memcpy(xs, &x, sizeof(xs));
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 4; ++j) sums.v[i] += xs[j] * quad.v[4 * i + j];
  }
  return sums;
}

#endif

// Neighbour j of K of each output.
inline F32x16 QuadColumn(const I8x64& a, int j) { return Mul(ScaledColumn(a, j), Set1(1 / kColumnScale)); }

}  // namespace heddle::ops::cpu::HEDDLE_ISA
