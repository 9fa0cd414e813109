// y = x * weight^T for bfloat16 weights, by AVX-512's dot products of bfloat16 pairs.
//
// A panel holds pairs of neighbours in K side by side, which is what one instruction multiplies and adds to the 16
// outputs' accumulators. Rows of x are rounded to bfloat16 and packed alike, each slice of K filled up to whole pairs.
// Every element of y is one accumulator that walks its slice of K upwards, so none of the sizes below is part of a
// result.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace pairs {

constexpr int kMaxTileRows = 6;  // with kMaxPanels: 24 accumulators of 32 registers
constexpr int kMaxPanels = 4;
constexpr int kMaxStreamPanels = 8;  // of one or two rows
constexpr int64_t kPairBytes = 2 * kPanelOutputs * static_cast<int64_t>(sizeof(uint16_t));
constexpr int64_t kSumsFloats = kMaxPackedRows * kMaxPanels * kPanelOutputs * NumPartialSums(kMaxSlices);
// How far ahead of its use a streamed panel is asked for: about a memory latency at full bandwidth.
constexpr int64_t kPrefetchBytes = 1024;

constexpr int PanelsFor(int64_t rows) { return rows <= 2 ? kMaxStreamPanels : kMaxPanels; }

inline int64_t PackedK(const MatmulArgs& args) { return args.packed_bounds[args.num_slices]; }

int64_t BlockRows(const MatmulArgs& args) {
  const int64_t row_bytes = PackedK(args) * static_cast<int64_t>(sizeof(uint16_t));
  const int64_t rows = row_bytes > 0 ? kPackedRowsBytes / row_bytes : kMaxPackedRows;
  return rows < 8 * kMaxTileRows ? 8 * kMaxTileRows : MinOf(rows, kMaxPackedRows);
}

size_t PackedBytes(const MatmulArgs& args) { return static_cast<size_t>(args.m * PackedK(args)) * sizeof(uint16_t); }

void Pack(const MatmulArgs& args, int64_t begin, int64_t end, void* packed) {
  for (int64_t row = begin; row < end; ++row) {
    for (int s = 0; s < args.num_slices; ++s) {
      const float* x = args.x + row * args.x_stride + args.slice_bounds[s];
      uint16_t* out = static_cast<uint16_t*>(packed) + row * PackedK(args) + args.packed_bounds[s];
      const int64_t size = args.slice_bounds[s + 1] - args.slice_bounds[s];
      for (int64_t k = 0; k < size; k += 16) {
        const int64_t count = MinOf(16, size - k);
        const F32x16 values = LoadPartial(x + k, static_cast<int>(count));
        // Filled up with a zero where the slice ends in half a pair.
        const auto mask = static_cast<__mmask16>((1u << ((count + 1) / 2 * 2)) - 1);
        _mm256_mask_storeu_epi16(out + k, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values.v)));
      }
    }
  }
}

// Some rows times some panels over one slice.
struct TileArgs {
  const uint16_t* x;
  int64_t x_stride;  // elements
  const char* weight;
  int64_t panel_bytes;
  int64_t num_pairs;
  float* sums;  // [rows, ...], rows sums_stride apart
  int64_t sums_stride;
};

// Weights of a panel: pair after pair, or of a sparse one the two pairs of a quad at a time.
template <bool kSparse>
struct Pairs;
template <>
struct Pairs<false> {
  static constexpr int kTogether = 1;
  static constexpr int64_t kBytes = kPairBytes;
  static void Load(const char* panel, int64_t i, __m512i* pairs) {
    pairs[0] = _mm512_loadu_si512(panel + i * kPairBytes);
  }
};
template <>
struct Pairs<true> {
  static constexpr int kTogether = 2;
  static constexpr int64_t kBytes = sparse::BlockBytes(sizeof(uint16_t)) / sparse::kBlockQuads;
  static void Load(const char* panel, int64_t i, __m512i* pairs) {
    const sparse::Lines lines = sparse::Expand16(sparse::Quad<2>(panel, i));
    pairs[0] = lines.first;
    pairs[1] = lines.second;
  }
};

template <int kRows, int kPanels, bool kSparse, bool kStream>
void MultiplyTile(const TileArgs& args) {
  using Weights = Pairs<kSparse>;
  __m512 sums[kRows][kPanels];
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) sums[r][p] = _mm512_setzero_ps();
  }
  for (int64_t i = 0; i < args.num_pairs / Weights::kTogether; ++i) {
    __m512i w[kPanels][Weights::kTogether];
    for (int p = 0; p < kPanels; ++p) {
      const char* panel = args.weight + p * args.panel_bytes;
      if constexpr (kStream) Prefetch(panel + i * Weights::kBytes + kPrefetchBytes);
      Weights::Load(panel, i, w[p]);
    }
    for (int j = 0; j < Weights::kTogether; ++j) {
      for (int r = 0; r < kRows; ++r) {
        int32_t both;
        std::memcpy(&both, args.x + r * args.x_stride + 2 * (i * Weights::kTogether + j), sizeof(both));
        const __m512i x = _mm512_set1_epi32(both);
        for (int p = 0; p < kPanels; ++p) {
          sums[r][p] = _mm512_dpbf16_ps(sums[r][p], reinterpret_cast<__m512bh>(w[p][j]), reinterpret_cast<__m512bh>(x));
        }
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p)
      _mm512_storeu_ps(args.sums + r * args.sums_stride + p * kPanelOutputs, sums[r][p]);
  }
}

using TileFunction = void (*)(const TileArgs& args);

// MultiplyTile for `rows` and `panels`, a power of two up to PanelsFor(rows).
template <bool kSparse, bool kStream, int kRows = kMaxTileRows, int kPanels = kMaxPanels>
TileFunction FindTile(int64_t rows, int64_t panels) {
  if (rows == kRows && panels == kPanels) return MultiplyTile<kRows, kPanels, kSparse, kStream>;
  if constexpr (kPanels > 1) {
    return FindTile<kSparse, kStream, kRows, kPanels / 2>(rows, panels);
  } else if constexpr (kRows > 1) {
    return FindTile<kSparse, kStream, kRows - 1, PanelsFor(kRows - 1)>(rows, panels);
  } else {
    return nullptr;
  }
}

inline TileFunction FindTile(bool is_sparse, bool streams, int64_t rows, int64_t panels) {
  if (is_sparse) return streams ? FindTile<true, true>(rows, panels) : FindTile<true, false>(rows, panels);
  return streams ? FindTile<false, true>(rows, panels) : FindTile<false, false>(rows, panels);
}

// sums [rows, columns] = the products over one slice.
inline void MultiplySlice(const MatmulArgs& args, const void* packed, const Block& block, int slice, float* sums) {
  TileArgs tile;
  tile.x_stride = PackedK(args);
  const int64_t begin = BytesTo(args, args.packed_bounds[slice]);
  const int64_t slice_bytes = BytesTo(args, args.packed_bounds[slice + 1]) - begin;
  tile.weight = static_cast<const char*>(args.weight) + block.panel * args.panel_bytes + begin;
  tile.panel_bytes = args.panel_bytes;
  tile.num_pairs = (args.slice_bounds[slice + 1] - args.slice_bounds[slice] + 1) / 2;
  tile.sums_stride = block.columns();
  const int64_t num_tiles = (block.rows + kMaxTileRows - 1) / kMaxTileRows;
  const bool streams = num_tiles <= 2;
  for (int64_t i = 0; i < num_tiles; ++i) {
    const int64_t row = block.rows * i / num_tiles;  // tiles differ by one row at most
    const int64_t rows = block.rows * (i + 1) / num_tiles - row;
    tile.x = static_cast<const uint16_t*>(packed) + row * tile.x_stride + args.packed_bounds[slice];
    tile.sums = sums + row * tile.sums_stride;
    for (int64_t panel = 0; !streams && panel < block.panels; ++panel) {
      // What the next block of panels will read comes from memory meanwhile.
      PrefetchShare(tile.weight + (block.panels + panel) * args.panel_bytes, slice_bytes, i, num_tiles);
    }
    FindTile(args.sparse, streams && i == 0, rows, block.panels)(tile);
  }
}

void Matmul(const MatmulArgs& args, const void* packed, int64_t panel_begin, int64_t panel_end) {
  Block block{0, args.m, panel_begin, 0};
  for (; block.panel < panel_end; block.panel += block.panels) {
    block.panels = PanelsFor(args.m);
    while (block.panels > panel_end - block.panel) block.panels /= 2;
    ComputeBlock(args, block, [&](const MatmulArgs& half, const auto& finish) {
      SumSlices(args.num_slices, block.rows * block.columns(), half.scratch,
                [&](int slice, float* sums) { MultiplySlice(half, packed, block, slice, sums); });
      FinishBlock(block, half.scratch, finish);
    });
  }
  StreamFence();
}

// The first half of a gated product stays before the scratch memory of the second.
size_t ScratchFloats() { return 2 * kSumsFloats; }

}  // namespace pairs

extern const PackedMatmulKernels kPackedMatmulKernels;
const PackedMatmulKernels kPackedMatmulKernels = {pairs::BlockRows, pairs::PackedBytes, /*pack_rows=*/1,
                                                  pairs::Pack,      pairs::Matmul,      pairs::ScratchFloats};

}  // namespace heddle::ops::cpu::HEDDLE_ISA
