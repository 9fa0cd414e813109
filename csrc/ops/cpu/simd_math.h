// Reductions and elementary functions over the sixteen lanes of ops/cpu/simd.h, with the same rules of inclusion.
//
// All are fixed sequences of the primitives there, so what is said there about bits holds here.
#pragma once

#include "ops/cpu/simd.h"

namespace heddle::ops::cpu::HEDDLE_ISA {

// How many lanes the vector fills that starts at element i of `size`.
inline int LanesAt(int64_t i, int64_t size) { return size - i < 16 ? static_cast<int>(size - i) : 16; }

#if defined(__AVX2__)

// Sum of the lanes in one fixed tree: i with i + 8, then + 4, + 2, + 1.
inline float ReduceAdd(F32x16 a) {
  __m256 lo, hi;
  SplitHalves(a, &lo, &hi);
  const __m256 eight = _mm256_add_ps(lo, hi);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// The largest lane, in the same tree. Lanes that are NaN may or may not be passed over.
inline float ReduceMax(F32x16 a) {
  __m256 lo, hi;
  SplitHalves(a, &lo, &hi);
  const __m256 eight = _mm256_max_ps(lo, hi);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

#else

// Sum of the lanes in one fixed tree: i with i + 8, then + 4, + 2, + 1.
inline float ReduceAdd(F32x16 a) {
  float lanes[16];
  Store(lanes, a);
  for (int width = 8; width >= 1; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] = lanes[i] + lanes[i + width];
  }
  return lanes[0];
}

// The largest lane, in the same tree. Lanes that are NaN may or may not be passed over.
inline float ReduceMax(F32x16 a) {
  float lanes[16];
  Store(lanes, a);
  for (int width = 8; width >= 1; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  }
  return lanes[0];
}

#endif

// a, but at least lo and at most hi; a NaN stays a NaN.
inline F32x16 Clamp(F32x16 a, float lo, float hi) { return Min(Set1(hi), Max(Set1(lo), a)); }

// e^r - 1 for the r in [-ln 2 / 2, ln 2 / 2] that is x - n ln 2. Cody-Waite reduction with ln 2 in two parts, then a
// minimax polynomial r + r^2 (c0 + .. + c4 r^4) with relative error 1.4e-8. REQUIRES: x in [-88, 89] or NaN.
inline F32x16 ReducedExpm1(F32x16 x, F32x16* n) {
  *n = Round(Mul(x, Set1(1.44269504088896341f)));
  F32x16 r = Fma(*n, Set1(-0.693359375f), x);
  r = Fma(*n, Set1(2.12194440e-4f), r);
  F32x16 p = Set1(0.00138706574f);
  p = Fma(p, r, Set1(0.00836626161f));
  p = Fma(p, r, Set1(0.0416674353f));
  p = Fma(p, r, Set1(0.166665465f));
  p = Fma(p, r, Set1(0.49999997f));
  return Fma(Mul(r, r), p, r);
}

// e^x to within 1.1 units in the last place for x in [-87.3, 88.3]. Zero below -87.7, infinity above 88.4, exactly 1
// at 0, NaN for NaN.
inline F32x16 Exp(F32x16 x) {
  F32x16 n;
  const F32x16 fraction = ReducedExpm1(Clamp(x, -88.0f, 89.0f), &n);
  return ScaleByPowerOf2(Add(fraction, Set1(1.0f)), n);
}

// tanh(x) to within 3 units in the last place, also for tiny x: with e = e^2x - 1, e / (e + 2).
inline F32x16 Tanh(F32x16 x) {
  F32x16 n;
  const F32x16 fraction = ReducedExpm1(Clamp(Add(x, x), -40.0f, 40.0f), &n);
  const F32x16 power = ScaleByPowerOf2(Set1(1.0f), n);
  const F32x16 e = Fma(fraction, power, Sub(power, Set1(1.0f)));
  return Div(e, Add(e, Set1(2.0f)));
}

}  // namespace heddle::ops::cpu::HEDDLE_ISA
