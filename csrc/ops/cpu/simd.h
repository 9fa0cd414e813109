// Sixteen float32 lanes, one implementation per instruction set.
//
// Included only by files that are compiled once per instruction set: HEDDLE_ISA names the namespace, so that the
// linker can never mix code built with different flags. For the same reason such files include no other header with
// inline functions of ours or of the standard library beyond <cstdint>, <cstring> and the intrinsics.
//
// AVX2 and AVX-512 do the same operations in the same order and agree bit for bit. The scalar build multiplies and
// adds separately: fused multiply-add without hardware would be a library call.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
// g++ 12 takes the undefined operands inside its own AVX-512 intrinsics for mistakes.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

#ifndef HEDDLE_ISA
#error "define HEDDLE_ISA (the name of an instruction set) before including ops/cpu/simd.h"
#endif

namespace heddle::ops::cpu::HEDDLE_ISA {

// Asks for a cache line that is read soon, into the second level: the first has few places for lines on their way from
// memory, and the reads themselves want them.
inline void Prefetch(const void* p) { __builtin_prefetch(p, 0, 2); }

#if defined(__AVX512F__)

struct F32x16 {
  __m512 v;
};

inline F32x16 Zero() { return {_mm512_setzero_ps()}; }
inline F32x16 Set1(float x) { return {_mm512_set1_ps(x)}; }
inline F32x16 Load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void Store(float* p, F32x16 a) { _mm512_storeu_ps(p, a.v); }
// Past the caches, for what nobody reads soon; other threads see it after StreamFence. REQUIRES: p 64-byte aligned.
inline void StoreStream(float* p, F32x16 a) { _mm512_stream_ps(p, a.v); }
inline void StreamFence() { _mm_sfence(); }
inline F32x16 Add(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32x16 Sub(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 Mul(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 Div(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
// Of equal or unordered operands, b.
inline F32x16 Max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F32x16 Min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F32x16 Fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F32x16 Round(F32x16 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// a * 2^n for integral n in [-127, 128], built by exponent bits: -127 multiplies by zero, 128 by infinity.
inline F32x16 ScaleByPowerOf2(F32x16 a, F32x16 n) {
  const __m512i bits = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127)), 23);
  return {_mm512_mul_ps(a.v, _mm512_castsi512_ps(bits))};
}

inline F32x16 LoadBFloat16(const uint16_t* p) {
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16))};
}
// 16 pairs of neighbours: the first of each and the second of each.
inline void LoadBFloat16Pairs(const uint16_t* p, F32x16* first, F32x16* second) {
  const __m512i pairs = _mm512_loadu_si512(p);
  first->v = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  second->v = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
// Lanes in whatever order loads fastest; InOrder puts them back.
inline F32x16 LoadBFloat16Unordered(const uint16_t* p) { return LoadBFloat16(p); }
inline F32x16 InOrder(F32x16 a) { return a; }
inline F32x16 LoadFloat16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}

// Lane i of the first `count` from p, zero beyond. REQUIRES: 0 <= count <= 16.
inline F32x16 LoadPartial(const float* p, int count) {
  return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p)};
}
inline void StorePartial(float* p, F32x16 a, int count) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), a.v);
}

// Rounds to nearest even; a NaN stays a NaN.
inline void StoreBFloat16(uint16_t* p, F32x16 a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i result = _mm512_srli_epi32(_mm512_mask_blend_epi32(is_nan, rounded, quiet), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(result));
}
inline void StoreFloat16(uint16_t* p, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// Lanes [begin, end) of a, `fill` elsewhere; both bounds may lie outside [0, 16].
inline F32x16 KeepLanes(F32x16 a, int begin, int end, float fill) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __mmask16 keep = static_cast<__mmask16>(_mm512_cmpge_epi32_mask(lane, _mm512_set1_epi32(begin)) &
                                                _mm512_cmplt_epi32_mask(lane, _mm512_set1_epi32(end)));
  return {_mm512_mask_blend_ps(keep, _mm512_set1_ps(fill), a.v)};
}

// Bit i is set where lanes i are equal; NaN equals nothing.
inline uint32_t EqualLanes(F32x16 a, F32x16 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }

inline void SplitHalves(F32x16 a, __m256* lo, __m256* hi) {
  *lo = _mm512_castps512_ps256(a.v);
  *hi = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.v), 1));
}

#elif defined(__AVX2__)

struct F32x16 {
  __m256 lo;
  __m256 hi;
};

inline F32x16 Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F32x16 Set1(float x) {
  const __m256 v = _mm256_set1_ps(x);
  return {v, v};
}
inline F32x16 Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void Store(float* p, F32x16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline void StoreStream(float* p, F32x16 a) {
  _mm256_stream_ps(p, a.lo);
  _mm256_stream_ps(p + 8, a.hi);
}
inline void StreamFence() { _mm_sfence(); }
inline F32x16 Add(F32x16 a, F32x16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline F32x16 Sub(F32x16 a, F32x16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline F32x16 Mul(F32x16 a, F32x16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline F32x16 Div(F32x16 a, F32x16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
// Of equal or unordered operands, b.
inline F32x16 Max(F32x16 a, F32x16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline F32x16 Min(F32x16 a, F32x16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline F32x16 Fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32x16 Round(F32x16 a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kMode), _mm256_round_ps(a.hi, kMode)};
}
inline __m256 PowerOf2(__m256 n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
// a * 2^n for integral n in [-127, 128], built by exponent bits: -127 multiplies by zero, 128 by infinity.
inline F32x16 ScaleByPowerOf2(F32x16 a, F32x16 n) {
  return {_mm256_mul_ps(a.lo, PowerOf2(n.lo)), _mm256_mul_ps(a.hi, PowerOf2(n.hi))};
}

inline __m256 WidenBFloat16(__m128i raw) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
}
inline F32x16 LoadBFloat16(const uint16_t* p) {
  return {WidenBFloat16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          WidenBFloat16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
// 16 pairs of neighbours: the first of each and the second of each.
inline void LoadBFloat16Pairs(const uint16_t* p, F32x16* first, F32x16* second) {
  const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16));
  const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  first->lo = _mm256_castsi256_ps(_mm256_slli_epi32(low, 16));
  first->hi = _mm256_castsi256_ps(_mm256_slli_epi32(high, 16));
  second->lo = _mm256_castsi256_ps(_mm256_and_si256(low, mask));
  second->hi = _mm256_castsi256_ps(_mm256_and_si256(high, mask));
}
// Lanes in whatever order loads fastest (here even elements, then odd ones: without widening moves, attention over one
// query head takes two thirds of the time); InOrder puts them back.
inline F32x16 LoadBFloat16Unordered(const uint16_t* p) {
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(raw, 16)),
          _mm256_castsi256_ps(_mm256_and_si256(raw, _mm256_set1_epi32(static_cast<int>(0xffff0000u))))};
}
inline F32x16 InOrder(F32x16 a) {
  const __m256 first = _mm256_unpacklo_ps(a.lo, a.hi);
  const __m256 second = _mm256_unpackhi_ps(a.lo, a.hi);
  return {_mm256_permute2f128_ps(first, second, 0x20), _mm256_permute2f128_ps(first, second, 0x31)};
}
inline F32x16 LoadFloat16(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}

// Lane i of the first `count` from p, zero beyond. REQUIRES: 0 <= count <= 16.
inline F32x16 LoadPartial(const float* p, int count) {
  if (count == 16) return Load(p);
  float lanes[16] = {};
  std::memcpy(lanes, p, static_cast<size_t>(count) * sizeof(float));
  return Load(lanes);
}
inline void StorePartial(float* p, F32x16 a, int count) {
  if (count == 16) return Store(p, a);
  float lanes[16];
  Store(lanes, a);
  std::memcpy(p, lanes, static_cast<size_t>(count) * sizeof(float));
}

inline __m256i NarrowBFloat16(__m256 a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256 is_nan = _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
  const __m256 result = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), is_nan);
  return _mm256_srli_epi32(_mm256_castps_si256(result), 16);
}
// Rounds to nearest even; a NaN stays a NaN.
inline void StoreBFloat16(uint16_t* p, F32x16 a) {
  // The pack works within 128-bit halves; the permutation puts the quarters back in order.
  const __m256i packed = _mm256_packus_epi32(NarrowBFloat16(a.lo), NarrowBFloat16(a.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
inline void StoreFloat16(uint16_t* p, F32x16 a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.lo, kMode));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.hi, kMode));
}

inline __m256 KeepLanes8(__m256 a, __m256i lane, int begin, int end, float fill) {
  const __m256i keep = _mm256_and_si256(_mm256_cmpgt_epi32(lane, _mm256_set1_epi32(begin - 1)),
                                        _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane));
  return _mm256_blendv_ps(_mm256_set1_ps(fill), a, _mm256_castsi256_ps(keep));
}
// Lanes [begin, end) of a, `fill` elsewhere; both bounds may lie outside [0, 16].
inline F32x16 KeepLanes(F32x16 a, int begin, int end, float fill) {
  return {KeepLanes8(a.lo, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), begin, end, fill),
          KeepLanes8(a.hi, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15), begin, end, fill)};
}

// Bit i is set where lanes i are equal; NaN equals nothing.
inline uint32_t EqualLanes(F32x16 a, F32x16 b) {
  const int lo = _mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ));
  const int hi = _mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ));
  return static_cast<uint32_t>(lo | (hi << 8));
}

inline void SplitHalves(F32x16 a, __m256* lo, __m256* hi) {
  *lo = a.lo;
  *hi = a.hi;
}

#else  // scalar

struct F32x16 {
  float v[16];
};

template <typename Function>
inline F32x16 Map(Function function) {
  F32x16 r;
  for (int i = 0; i < 16; ++i) r.v[i] = function(i);
  return r;
}

inline float BitsToFloat(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline uint32_t FloatToBits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline F32x16 Zero() { return {}; }
inline F32x16 Set1(float x) {
  return Map([=](int) { return x; });
}
inline F32x16 Load(const float* p) {
  F32x16 r;
  std::memcpy(r.v, p, sizeof(r.v));
  return r;
}
inline void Store(float* p, F32x16 a) { std::memcpy(p, a.v, sizeof(a.v)); }
inline void StoreStream(float* p, F32x16 a) { Store(p, a); }
inline void StreamFence() {}
inline F32x16 Add(F32x16 a, F32x16 b) {
  return Map([&](int i) { return a.v[i] + b.v[i]; });
}
inline F32x16 Sub(F32x16 a, F32x16 b) {
  return Map([&](int i) { return a.v[i] - b.v[i]; });
}
inline F32x16 Mul(F32x16 a, F32x16 b) {
  return Map([&](int i) { return a.v[i] * b.v[i]; });
}
inline F32x16 Div(F32x16 a, F32x16 b) {
  return Map([&](int i) { return a.v[i] / b.v[i]; });
}
// Of equal or unordered operands, b.
inline F32x16 Max(F32x16 a, F32x16 b) {
  return Map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32x16 Min(F32x16 a, F32x16 b) {
  return Map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32x16 Fma(F32x16 a, F32x16 b, F32x16 c) {
  return Map([&](int i) { return a.v[i] * b.v[i] + c.v[i]; });
}
// Adding 1.5 * 2^23 leaves no fraction bits: rounds to nearest even for |a| < 2^22.
inline F32x16 Round(F32x16 a) {
  return Map([&](int i) { return (a.v[i] + 12582912.0f) - 12582912.0f; });
}
// a * 2^n for integral n in [-127, 128], built by exponent bits: -127 multiplies by zero, 128 by infinity.
inline F32x16 ScaleByPowerOf2(F32x16 a, F32x16 n) {
  return Map([&](int i) {
    const int exponent = n.v[i] == n.v[i] ? static_cast<int>(n.v[i]) : 0;  // a NaN has no integer value
    return a.v[i] * BitsToFloat(static_cast<uint32_t>(exponent + 127) << 23);
  });
}

inline F32x16 LoadBFloat16(const uint16_t* p) {
  return Map([=](int i) { return BitsToFloat(static_cast<uint32_t>(p[i]) << 16); });
}
// 16 pairs of neighbours: the first of each and the second of each.
inline void LoadBFloat16Pairs(const uint16_t* p, F32x16* first, F32x16* second) {
  *first = Map([=](int i) { return BitsToFloat(static_cast<uint32_t>(p[2 * i]) << 16); });
  *second = Map([=](int i) { return BitsToFloat(static_cast<uint32_t>(p[2 * i + 1]) << 16); });
}
// Lanes in whatever order loads fastest; InOrder puts them back.
inline F32x16 LoadBFloat16Unordered(const uint16_t* p) { return LoadBFloat16(p); }
inline F32x16 InOrder(F32x16 a) { return a; }
inline float WidenFloat16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t rest = bits & 0x7fffu;
  if (rest >= 0x7c00u) return BitsToFloat(sign | 0x7f800000u | ((rest & 0x3ffu) << 13));
  // The exponent is rebiased by a multiplication, which also makes subnormals normal.
  return BitsToFloat(sign | (rest << 13)) * BitsToFloat(0x77800000u);  // 2^112
}
inline F32x16 LoadFloat16(const uint16_t* p) {
  return Map([=](int i) { return WidenFloat16(p[i]); });
}

// Lane i of the first `count` from p, zero beyond. REQUIRES: 0 <= count <= 16.
inline F32x16 LoadPartial(const float* p, int count) {
  F32x16 r = Zero();
  std::memcpy(r.v, p, static_cast<size_t>(count) * sizeof(float));
  return r;
}
inline void StorePartial(float* p, F32x16 a, int count) {
  std::memcpy(p, a.v, static_cast<size_t>(count) * sizeof(float));
}

// Rounds to nearest even; a NaN stays a NaN.
inline void StoreBFloat16(uint16_t* p, F32x16 a) {
  for (int i = 0; i < 16; ++i) {
    const uint32_t bits = FloatToBits(a.v[i]);
    const uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    p[i] = static_cast<uint16_t>((a.v[i] == a.v[i] ? rounded : bits | 0x400000u) >> 16);
  }
}
inline uint16_t NarrowFloat16(float value) {
  const uint32_t sign = (FloatToBits(value) >> 16) & 0x8000u;
  const uint32_t rest = FloatToBits(value) & 0x7fffffffu;
  uint32_t half;
  if (rest > 0x7f800000u) {
    half = 0x7e00u | ((rest >> 13) & 0x3ffu);
  } else if (rest >= 0x477ff000u) {  // 65520 and above
    half = 0x7c00u;
  } else if (rest < 0x38800000u) {  // subnormal: the unit of 0.5's last place is that of the result
    half = FloatToBits(BitsToFloat(rest) + 0.5f) - FloatToBits(0.5f);
  } else {
    half = (rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1u)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}
inline void StoreFloat16(uint16_t* p, F32x16 a) {
  for (int i = 0; i < 16; ++i) p[i] = NarrowFloat16(a.v[i]);
}

// Lanes [begin, end) of a, `fill` elsewhere; both bounds may lie outside [0, 16].
inline F32x16 KeepLanes(F32x16 a, int begin, int end, float fill) {
  return Map([&](int i) { return begin <= i && i < end ? a.v[i] : fill; });
}

// Bit i is set where lanes i are equal; NaN equals nothing.
inline uint32_t EqualLanes(F32x16 a, F32x16 b) {
  uint32_t lanes = 0;
  for (int i = 0; i < 16; ++i) lanes |= (a.v[i] == b.v[i] ? 1u : 0u) << i;
  return lanes;
}

#endif

}  // namespace heddle::ops::cpu::HEDDLE_ISA
