// Quads of 2:4 sparse panels as dense panels have them, for instructions that multiply integers or pairs.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace sparse {

// Of each element of a quad of int8, in its dense order, whether it is stored.
inline uint64_t StoredElements(const char* choices) {
  uint64_t bits;
  std::memcpy(&bits, choices, sizeof(bits));
  return bits ^ 0x3333333333333333;
}

#if defined(__AVX512VBMI2__)

inline I8x64 Expand8(const Quad<1>& quad) {
  const __m256i values = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(quad.values));
  return {_mm512_maskz_expand_epi8(StoredElements(quad.choices), _mm512_castsi256_si512(values))};
}

// A quad of 16-bit elements as a dense panel has it: two lines of pairs of neighbours.
struct Lines {
  __m512i first;
  __m512i second;
};
inline Lines Expand16(const Quad<2>& quad) {
  const uint64_t stored = StoredElements(quad.choices);
  // Each the four neighbours of eight outputs.
  const auto expand = [&](int half) {
    const __m256i values = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(quad.values + 32 * half));
    return _mm512_maskz_expand_epi16(static_cast<uint32_t>(stored >> (32 * half)), _mm512_castsi256_si512(values));
  };
  const __m512i low = expand(0);
  const __m512i high = expand(1);
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  return {_mm512_permutex2var_epi32(low, even, high),
          _mm512_permutex2var_epi32(low, _mm512_add_epi32(even, _mm512_set1_epi32(1)), high)};
}

#elif defined(__AVX2__)

// Spreads the two values of each output over its four bytes.
inline __m256i SpreadPairs(__m256i pairs, __m256i choices) {
  // By choice, from which byte each of the four comes; the top bit makes zero.
  const __m256i bytes =
      _mm256_setr_epi32(static_cast<int>(0x80800100u), static_cast<int>(0x01800080u), static_cast<int>(0x01808000u), 0,
                        0, static_cast<int>(0x80010080u), static_cast<int>(0x80018000u), static_cast<int>(0x01008080u));
  const __m256i first_bytes =
      _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404, 0x08080808, 0x0c0c0c0c);
  return _mm256_shuffle_epi8(pairs, _mm256_or_si256(_mm256_permutevar8x32_epi32(bytes, choices), first_bytes));
}
inline I8x64 Expand8(const Quad<1>& quad) {
  const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
  const auto half = [&](int i) {
    const __m256i bits = _mm256_set1_epi32(static_cast<int>(LoadBits(quad.choices + 4 * i)));
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(quad.values + 16 * i));
    return SpreadPairs(_mm256_cvtepu16_epi32(values), _mm256_srlv_epi32(bits, shifts));
  };
  return JoinQuad(half(0), half(1));
}

#else

inline I8x64 Expand8(const Quad<1>& quad) {
  I8x64 dense = {};
  uint64_t stored = StoredElements(quad.choices);
  for (const char* value = quad.values; stored != 0; stored &= stored - 1, ++value) {
    std::memcpy(dense.v + __builtin_ctzll(stored), value, 1);
  }
  return dense;
}

#endif

}  // namespace sparse
}  // namespace heddle::ops::cpu::HEDDLE_ISA
