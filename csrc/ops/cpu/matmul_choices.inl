// 2:4 sparse panels: where their quads lie, and what rows of floats make of them. The layout is that of
// ops/packed_matrix.h.
//
// Rows of floats are not multiplied by expanded weights: for each output the two of a row's four neighbours that meet
// stored values are picked, with one permutation of the row for all 16 outputs. So half of the multiply-adds are left,
// and neither a mask nor a count of values stands before them. What is left out are products with zero, so sums are
// those of the dense panel, to the bit, where x is finite.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace sparse {

constexpr int64_t kBlockK = 32;
constexpr int64_t kBlockQuads = 8;
constexpr int64_t kChoicesBytes = 8;                // of a quad
constexpr int64_t kQuadValues = 2 * kPanelOutputs;  // that are stored
constexpr int64_t BlockBytes(int64_t element) { return kBlockQuads * (kChoicesBytes + kQuadValues * element); }

// A quad of a panel whose block 0 begins at `panel`.
template <int64_t kElement>
struct Quad {
  Quad(const char* panel, int64_t quad) {
    const char* block = panel + quad / kBlockQuads * BlockBytes(kElement);
    choices = block + quad % kBlockQuads * kChoicesBytes;
    values = block + kBlockQuads * kChoicesBytes + quad % kBlockQuads * kQuadValues * kElement;
  }
  const char* choices;
  const char* values;
};

inline uint32_t LoadBits(const char* p) {
  uint32_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return bits;
}

// For each output which two of four neighbours it stores, and what of a row's four can be picked by that. Indices of
// tables: the lowest three bits of a choice, which tell all six apart.

#if defined(__AVX512F__)

struct Choices {
  __m512i v;  // the lowest four bits of each count
};
struct Neighbours {
  __m512 first;
  __m512 second;
};

inline Choices LoadChoices(const char* p) {
#if defined(__AVX512VBMI__)
  int64_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  // Each byte of the result begins at a bit of its own: the first of every four at the bits of one output.
  const __m512i begins =
      _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(4));
  return {_mm512_multishift_epi64_epi8(begins, _mm512_set1_epi64(bits))};
#else
  const __m512i words = _mm512_mask_set1_epi32(_mm512_set1_epi32(static_cast<int>(LoadBits(p))), 0xff00,
                                               static_cast<int>(LoadBits(p + 4)));
  return {_mm512_srlv_epi32(words, _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28))};
#endif
}
inline Neighbours LoadNeighbours(const float* x) {
  const __m512 four = _mm512_broadcast_f32x4(_mm_loadu_ps(x));
  return {_mm512_permutevar_ps(four, _mm512_setr_epi32(0, 1, 0, 0, 0, 1, 0, 2, 0, 1, 0, 0, 0, 1, 0, 2)),
          _mm512_permutevar_ps(four, _mm512_setr_epi32(1, 3, 3, 0, 0, 2, 2, 3, 1, 3, 3, 0, 0, 2, 2, 3))};
}
inline F32x16 PickFirst(const Neighbours& x, Choices choices) { return {_mm512_permutexvar_ps(choices.v, x.first)}; }
inline F32x16 PickSecond(const Neighbours& x, Choices choices) { return {_mm512_permutexvar_ps(choices.v, x.second)}; }

// Byte kByte of each 32 bits, times kColumnScale: with its sign flipped it goes into the mantissa of a power of two,
// which is then taken away. Logic and a difference go to more units than a shuffle and a conversion.
template <int kByte>
inline F32x16 ScaledByte(__m512i words) {
  constexpr uint32_t kPower =
      0x57000000u - (static_cast<uint32_t>(8 * kByte) << 23);  // 2^47: 24 bits above the mantissa
  const __m512i byte = _mm512_set1_epi32(0xff << (8 * kByte));
  const __m512i bits = _mm512_set1_epi32(static_cast<int>(kPower | 0x80u << (8 * kByte)));
  constexpr int kAndXor = 0x6a;
  const __m512 sum = _mm512_castsi512_ps(_mm512_ternarylogic_epi32(words, byte, bits, kAndXor));
  return {_mm512_sub_ps(sum, _mm512_castsi512_ps(bits))};
}
inline void LoadInt8Pairs(const char* p, F32x16* first, F32x16* second) {
  const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  *first = ScaledByte<0>(words);
  *second = ScaledByte<1>(words);
}
inline void LoadFloat16Pairs(const uint16_t* p, F32x16* first, F32x16* second) {
  const __m512 low = LoadFloat16(p).v;
  const __m512 high = LoadFloat16(p + 16).v;
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  first->v = _mm512_permutex2var_ps(low, even, high);
  second->v = _mm512_permutex2var_ps(low, _mm512_add_epi32(even, _mm512_set1_epi32(1)), high);
}

#elif defined(__AVX2__)

struct Choices {
  __m256i lo;  // the lowest three bits of each count
  __m256i hi;
};
struct Neighbours {
  __m256 first;
  __m256 second;
};

inline Choices LoadChoices(const char* p) {
  const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
  return {_mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(LoadBits(p))), shifts),
          _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(LoadBits(p + 4))), shifts)};
}
inline Neighbours LoadNeighbours(const float* x) {
  const __m128 once = _mm_loadu_ps(x);
  const __m256 four = _mm256_set_m128(once, once);
  return {_mm256_permutevar_ps(four, _mm256_setr_epi32(0, 1, 0, 0, 0, 1, 0, 2)),
          _mm256_permutevar_ps(four, _mm256_setr_epi32(1, 3, 3, 0, 0, 2, 2, 3))};
}
inline F32x16 Pick(__m256 table, const Choices& choices) {
  return {_mm256_permutevar8x32_ps(table, choices.lo), _mm256_permutevar8x32_ps(table, choices.hi)};
}
inline F32x16 PickFirst(const Neighbours& x, const Choices& choices) { return Pick(x.first, choices); }
inline F32x16 PickSecond(const Neighbours& x, const Choices& choices) { return Pick(x.second, choices); }

// Times kColumnScale.
inline void LoadInt8Pairs(const char* p, F32x16* first, F32x16* second) {
  const I8x64 words = {_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
                       _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16)))};
  *first = ScaledColumn(words, 0);
  *second = ScaledColumn(words, 1);
}
// Every other of 16, from `kFrom`, 0 or 1, on.
template <int kFrom>
inline __m256 EveryOther(F32x16 a) {
  const __m256 quarters = _mm256_shuffle_ps(a.lo, a.hi, kFrom == 0 ? 0x88 : 0xdd);
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(quarters), 0xd8));
}
inline void LoadFloat16Pairs(const uint16_t* p, F32x16* first, F32x16* second) {
  const F32x16 low = LoadFloat16(p);
  const F32x16 high = LoadFloat16(p + 16);
  *first = {EveryOther<0>(low), EveryOther<0>(high)};
  *second = {EveryOther<1>(low), EveryOther<1>(high)};
}

#else

struct Choices {
  uint8_t first[kPanelOutputs];
  uint8_t second[kPanelOutputs];
};
struct Neighbours {
  float x[4];
};

inline Choices LoadChoices(const char* p) {
  constexpr uint8_t kFirst[] = {0, 1, 0, 0, 0, 1, 0, 2};
  constexpr uint8_t kSecond[] = {1, 3, 3, 0, 0, 2, 2, 3};
  Choices choices;
  for (int i = 0; i < kPanelOutputs; ++i) {
    const unsigned choice = static_cast<unsigned char>(p[i / 2]) >> (4 * (i % 2)) & 7;
    choices.first[i] = kFirst[choice];
    choices.second[i] = kSecond[choice];
  }
  return choices;
}
inline Neighbours LoadNeighbours(const float* x) { return {{x[0], x[1], x[2], x[3]}}; }
inline F32x16 PickFirst(const Neighbours& x, const Choices& choices) {
  return Map([&](int i) { return x.x[choices.first[i]]; });
}
inline F32x16 PickSecond(const Neighbours& x, const Choices& choices) {
  return Map([&](int i) { return x.x[choices.second[i]]; });
}

// Times kColumnScale.
inline void LoadInt8Pairs(const char* p, F32x16* first, F32x16* second) {
  *first = Map([=](int i) { return static_cast<float>(static_cast<int8_t>(p[2 * i])) * kColumnScale; });
  *second = Map([=](int i) { return static_cast<float>(static_cast<int8_t>(p[2 * i + 1])) * kColumnScale; });
}
inline void LoadFloat16Pairs(const uint16_t* p, F32x16* first, F32x16* second) {
  *first = Map([=](int i) { return WidenFloat16(p[2 * i]); });
  *second = Map([=](int i) { return WidenFloat16(p[2 * i + 1]); });
}

#endif

// What a quad's outputs store. Int8 values come times kColumnScale.
struct Stored {
  F32x16 first;
  F32x16 second;
  Choices choices;
};

template <Storage kStorage>
inline Stored Load(const char* panel, int64_t number) {
  const Quad<kStorage == Storage::kInt8 ? 1 : 2> quad(panel, number);
  Stored stored;
  stored.choices = LoadChoices(quad.choices);
  if constexpr (kStorage == Storage::kInt8) {
    LoadInt8Pairs(quad.values, &stored.first, &stored.second);
  } else if constexpr (kStorage == Storage::kBFloat16) {
    LoadBFloat16Pairs(reinterpret_cast<const uint16_t*>(quad.values), &stored.first, &stored.second);
  } else {
    LoadFloat16Pairs(reinterpret_cast<const uint16_t*>(quad.values), &stored.first, &stored.second);
  }
  return stored;
}

// sums += four neighbours of a row times a quad, upwards.
inline F32x16 MultiplyAdd(const Neighbours& x, const Stored& quad, F32x16 sums) {
  sums = Fma(PickFirst(x, quad.choices), quad.first, sums);
  return Fma(PickSecond(x, quad.choices), quad.second, sums);
}

}  // namespace sparse
}  // namespace heddle::ops::cpu::HEDDLE_ISA
