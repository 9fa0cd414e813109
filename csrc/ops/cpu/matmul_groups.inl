// What panels of weights are made of, and how a part of one is loaded. The layouts are those of ops/packed_matrix.h.

namespace heddle::ops::cpu::HEDDLE_ISA {

constexpr int64_t StorageBytes(Storage storage) {
  return storage == Storage::kFloat32 ? 4 : storage == Storage::kInt8 ? 1 : 2;
}

// 2:4 sparse panels: where their quads lie, and how one becomes dense.
namespace sparse {

constexpr int64_t kBlockK = 32;
constexpr int64_t kBlockQuads = 8;
constexpr int64_t kMasksBytes = 64;                 // of a block
constexpr int64_t kQuadValues = 2 * kPanelOutputs;  // that are stored
constexpr int64_t BlockBytes(int64_t element) { return kMasksBytes + kBlockQuads * kQuadValues * element; }

// A quad of a panel whose block 0 begins at `panel`.
template <int64_t kElement>
struct Quad {
  Quad(const char* panel, int64_t quad) {
    const char* block = panel + quad / kBlockQuads * BlockBytes(kElement);
    std::memcpy(&mask, block + quad % kBlockQuads * 8, sizeof(mask));
    values = block + kMasksBytes + quad % kBlockQuads * kQuadValues * kElement;
  }
  uint64_t mask;
  const char* values;
};

#if defined(__AVX512VBMI2__)

inline I8x64 Expand8(const Quad<1>& quad) {
  const __m256i values = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(quad.values));
  return {_mm512_maskz_expand_epi8(quad.mask, _mm512_castsi256_si512(values))};
}
// A quad of 16-bit elements: two lines of 32.
struct Lines {
  __m512i first;
  __m512i second;
};
inline Lines Expand16(const Quad<2>& quad) {
  const auto first = static_cast<uint32_t>(quad.mask);
  const auto second = static_cast<uint32_t>(quad.mask >> 32);
  const char* rest = quad.values + 2 * __builtin_popcount(first);
  return {_mm512_maskz_expand_epi16(first, _mm512_loadu_si512(quad.values)),
          _mm512_maskz_expand_epi16(second, _mm512_loadu_si512(rest))};
}
inline void Expand16(const Quad<2>& quad, uint16_t* dense) {
  const Lines lines = Expand16(quad);
  _mm512_storeu_si512(dense, lines.first);
  _mm512_storeu_si512(dense + 32, lines.second);
}

#elif defined(__AVX2__)

// For each byte of a mask the shuffle that spreads the values of its elements, and makes the others zero.
template <int kElement>
struct Shuffles {
  constexpr Shuffles() {
    for (int mask = 0; mask < 256; ++mask) {
      int next = 0;
      for (int i = 0; i < 8 * kElement; ++i) {
        const bool stored = (mask >> (i / kElement) & 1) != 0;
        bytes[mask][i] = stored ? static_cast<uint8_t>(next++) : uint8_t{0x80};
      }
    }
  }
  alignas(16) uint8_t bytes[256][8 * kElement] = {};
};
template <int kElement>
constexpr Shuffles<kElement> kShuffles;

// One half of a quad: of two outputs, a byte of the mask, four values are stored.
inline __m256i ExpandHalf(const Quad<1>& quad, int half) {
  const uint64_t mask = quad.mask >> (32 * half);
  const auto shuffle = [&](int i) {
    int64_t bytes;
    std::memcpy(&bytes, kShuffles<1>.bytes[mask >> (8 * i) & 0xff], sizeof(bytes));
    return bytes;
  };
  const __m256i first_values =
      _mm256_set_epi64x(0x0c0c0c0c0c0c0c0c, 0x0808080808080808, 0x0404040404040404, 0x0000000000000000);
  const __m256i shuffles = _mm256_set_epi64x(shuffle(3), shuffle(2), shuffle(1), shuffle(0));
  const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(quad.values + 16 * half));
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), _mm256_add_epi8(shuffles, first_values));
}
inline I8x64 Expand8(const Quad<1>& quad) { return JoinQuad(ExpandHalf(quad, 0), ExpandHalf(quad, 1)); }

// Elements [8 * i, 8 * i + 8).
inline __m128i ExpandEight(const Quad<2>& quad, int i) {
  const uint8_t* shuffle = kShuffles<2>.bytes[quad.mask >> (8 * i) & 0xff];
  const int before = __builtin_popcountll(quad.mask & ((uint64_t{1} << (8 * i)) - 1));
  return _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(quad.values + 2 * before)),
                          _mm_load_si128(reinterpret_cast<const __m128i*>(shuffle)));
}
inline void Expand16(const Quad<2>& quad, uint16_t* dense) {
  for (int i = 0; i < 8; i += 2) {
    const __m256i sixteen = _mm256_set_m128i(ExpandEight(quad, i + 1), ExpandEight(quad, i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(dense + 8 * i), sixteen);
  }
}

#else

template <typename T>
inline void ExpandElements(uint64_t mask, const char* values, T* dense) {
  for (int64_t i = 0; i < 4 * kPanelOutputs; ++i, mask >>= 1) {
    T value;
    std::memcpy(&value, values, sizeof(T));
    const auto stored = static_cast<T>(mask & 1);
    dense[i] = static_cast<T>(stored * value);
    values += stored * sizeof(T);
  }
}

inline I8x64 Expand8(const Quad<1>& quad) {
  alignas(64) uint8_t dense[4 * kPanelOutputs];
  ExpandElements(quad.mask, quad.values, dense);
  return LoadQuad(reinterpret_cast<const char*>(dense));
}
inline void Expand16(const Quad<2>& quad, uint16_t* dense) { ExpandElements(quad.mask, quad.values, dense); }

#endif

}  // namespace sparse

// What a panel of weights is made of: groups of a few neighbours in K of its 16 outputs. Int8 ones come times
// kColumnScale.
template <Storage kStorage, bool kSparse>
struct Groups;

template <Storage kStorage>
struct Groups<kStorage, false> {
  static constexpr int kSize = kStorage == Storage::kInt8 ? 4 : 2;
  static constexpr int64_t kBytes = kSize * kPanelOutputs * StorageBytes(kStorage);

  // Group number `group` from `panel` on.
  static void Load(const char* panel, int64_t group, F32x16* weights) {
    const char* p = panel + group * kBytes;
    if constexpr (kStorage == Storage::kFloat32) {
      weights[0] = heddle::ops::cpu::HEDDLE_ISA::Load(reinterpret_cast<const float*>(p));
      weights[1] = heddle::ops::cpu::HEDDLE_ISA::Load(reinterpret_cast<const float*>(p) + kPanelOutputs);
    } else if constexpr (kStorage == Storage::kBFloat16) {
      LoadBFloat16Pairs(reinterpret_cast<const uint16_t*>(p), &weights[0], &weights[1]);
    } else if constexpr (kStorage == Storage::kFloat16) {
      weights[0] = LoadFloat16(reinterpret_cast<const uint16_t*>(p));
      weights[1] = LoadFloat16(reinterpret_cast<const uint16_t*>(p) + kPanelOutputs);
    } else {
      const I8x64 quad = LoadQuad(p);
      for (int j = 0; j < kSize; ++j) weights[j] = ScaledColumn(quad, j);
    }
  }
};

template <Storage kStorage>
struct Groups<kStorage, true> {
  static constexpr int kSize = 4;
  static constexpr int64_t kBytes = sparse::BlockBytes(StorageBytes(kStorage)) / sparse::kBlockQuads;

  // `panel` is where a block begins.
  static void Load(const char* panel, int64_t group, F32x16* weights) {
    if constexpr (kStorage == Storage::kInt8) {
      const I8x64 quad = sparse::Expand8(sparse::Quad<1>(panel, group));
      for (int j = 0; j < kSize; ++j) weights[j] = ScaledColumn(quad, j);
#if defined(__AVX512VBMI2__)
    } else if constexpr (kStorage == Storage::kBFloat16) {
      const sparse::Lines lines = sparse::Expand16(sparse::Quad<2>(panel, group));
      WidenBFloat16Pairs(lines.first, &weights[0], &weights[1]);
      WidenBFloat16Pairs(lines.second, &weights[2], &weights[3]);
#endif
    } else {
      alignas(64) uint16_t dense[4 * kPanelOutputs];
      sparse::Expand16(sparse::Quad<2>(panel, group), dense);
      using Dense = Groups<kStorage, false>;
      Dense::Load(reinterpret_cast<const char*>(dense), 0, weights);
      Dense::Load(reinterpret_cast<const char*>(dense), 1, weights + Dense::kSize);
    }
  }
};

// Calls use(groups) for the groups of such weights.
template <typename Use>
auto WithGroups(Storage storage, bool is_sparse, const Use& use) {
  switch (storage) {
    case Storage::kFloat32:
      return use(Groups<Storage::kFloat32, false>());
    case Storage::kBFloat16:
      return is_sparse ? use(Groups<Storage::kBFloat16, true>()) : use(Groups<Storage::kBFloat16, false>());
    case Storage::kFloat16:
      return is_sparse ? use(Groups<Storage::kFloat16, true>()) : use(Groups<Storage::kFloat16, false>());
    case Storage::kInt8:
      break;
  }
  return is_sparse ? use(Groups<Storage::kInt8, true>()) : use(Groups<Storage::kInt8, false>());
}

// Bytes of a panel up to position `packed` of K, where a group or, of a sparse one, a block begins.
inline int64_t BytesTo(const MatmulArgs& args, int64_t packed) {
  const int64_t element = StorageBytes(args.storage);
  return args.sparse ? packed / sparse::kBlockK * sparse::BlockBytes(element) : packed * kPanelOutputs * element;
}

}  // namespace heddle::ops::cpu::HEDDLE_ISA
