// Where tiles of weights come from.
//
// Dense panels of bfloat16, and of int8 for rows of int8, are as tiles want them: 1 KiB is the 16 outputs of 32 or of
// 64 neighbours in K. All others are expanded into such tiles, a few at a time, which stay in L1 while they are used.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace tiles {

// 32 neighbours of K.
inline void ExpandSparse16(const char* panel, char* tile) {
  for (int64_t quad = 0; quad < sparse::kBlockQuads; ++quad) {
    const sparse::Lines lines = sparse::Expand16(sparse::Quad<2>(panel, quad));
    _mm512_storeu_si512(tile + quad * 2 * kRowBytes, lines.first);
    _mm512_storeu_si512(tile + (quad * 2 + 1) * kRowBytes, lines.second);
  }
}

// A quad of int8 as two lines of pairs of bfloat16, times kColumnScale: exactly the upper half of a float32.
inline void StorePairs(I8x64 quad, char* pairs) {
  for (int j = 0; j < 4; j += 2) {
    const __m512i even = _mm512_castps_si512(ScaledColumn(quad, j).v);
    const __m512i odd = _mm512_castps_si512(ScaledColumn(quad, j + 1).v);
    _mm512_storeu_si512(pairs + j / 2 * kRowBytes, _mm512_or_si512(_mm512_srli_epi32(even, 16), odd));
  }
}

// 32 neighbours of K.
template <bool kSparse>
void ExpandToPairs(const char* panel, char* tile) {
  for (int64_t quad = 0; quad < 8; ++quad) {
    StorePairs(int8::LoadWeights<kSparse>(panel, quad), tile + quad * 2 * kRowBytes);
  }
}

// 64 neighbours of K.
inline void ExpandSparse8(const char* panel, char* tile) {
  for (int64_t quad = 0; quad < 16; ++quad) StoreQuad(tile + quad * kRowBytes, int8::LoadWeights<true>(panel, quad));
}

struct WeightTiles {
  // For tiles of so many neighbours in K, or of int8.
  WeightTiles(const MatmulArgs& args, bool int8_tiles, int64_t tile_k) : bytes(BytesTo(args, tile_k)) {
    if (int8_tiles) {
      expand = args.sparse ? ExpandSparse8 : nullptr;
    } else if (args.storage == Storage::kInt8) {
      expand = args.sparse ? ExpandToPairs<true> : ExpandToPairs<false>;
    } else {
      expand = args.sparse ? ExpandSparse16 : nullptr;
    }
  }
  int64_t bytes;                                            // of a panel that make a tile
  void (*expand)(const char* panel, char* tile) = nullptr;  // null: they are one
};

}  // namespace tiles
}  // namespace heddle::ops::cpu::HEDDLE_ISA
