// y = x * weight^T over panels of 16 outputs.
//
// Every element of y is one accumulator that walks its slice of K upwards with fused multiply-adds; tiles and blocks
// below choose only which elements are computed together, so none of the sizes here is part of a result.

namespace heddle::ops::cpu::HEDDLE_ISA {

// A tile is the rows x panels whose accumulators stay in registers.
#if defined(__AVX512F__)
constexpr int kMaxTileRows = 12;
constexpr int kMaxTilePanels = 8;
constexpr int kTileAccumulators = 16;  // of 32 registers, one each
#elif defined(__AVX2__)
constexpr int kMaxTileRows = 5;
constexpr int kMaxTilePanels = 4;
constexpr int kTileAccumulators = 5;  // of 16 registers, two each
#else
constexpr int kMaxTileRows = 2;
constexpr int kMaxTilePanels = 2;
constexpr int kTileAccumulators = 2;
#endif

// What stays in cache when x has more rows than a tile: a block of x in L2, a panel's part of a chunk in L1.
constexpr int kBlockRows = 100;
constexpr int kChunk = 256;
constexpr int kChunkStride = kChunk + 16;  // not a power of two: rows of a chunk shall not share cache sets
constexpr int kMaxPartialSums = 4;         // log2 of the most slices, and one
constexpr int kSumColumns = 512;           // of all partial sums together
constexpr int kPanelOutputs = 16;

// The furthest power of two of panels that `rows` leave accumulators for.
constexpr int TilePanels(int rows) {
  int panels = 1;
  while (2 * panels * rows <= kTileAccumulators && 2 * panels <= kMaxTilePanels) panels *= 2;
  return panels;
}

constexpr int64_t StorageBytes(Storage storage) { return storage == Storage::kFloat32 ? 4 : 2; }

// How far ahead of its use a panel is asked for: about a memory latency at full bandwidth.
#ifndef PFB
#define PFB 1024
#endif
#ifndef LOC
#define LOC 3
#endif
#ifndef GRP
#define GRP 16
#endif
constexpr int kLocality = LOC;
constexpr int64_t kPrefetchBytes = PFB;

template <Storage kStorage>
inline void LoadWeightPair(const char* p, F32x16* first, F32x16* second) {
  if constexpr (kStorage == Storage::kFloat32) {
    *first = Load(reinterpret_cast<const float*>(p));
    *second = Load(reinterpret_cast<const float*>(p) + 16);
  } else if constexpr (kStorage == Storage::kBFloat16) {
    LoadBFloat16Pairs(reinterpret_cast<const uint16_t*>(p), first, second);
  } else {
    *first = LoadFloat16(reinterpret_cast<const uint16_t*>(p));
    *second = LoadFloat16(reinterpret_cast<const uint16_t*>(p) + 16);
  }
}

// One tile over `k` elements of one slice.
struct TileArgs {
  const float* x;
  int64_t x_stride;
  const char* weight;
  int64_t panel_bytes;
  int64_t k;
  const char* prefetch;  // what to bring near meanwhile: for each panel, prefetch_step bytes onwards a pair of K
  int64_t prefetch_step;
  bool resume;  // go on from what `sums` holds instead of from zero
  float* sums;
  int64_t sums_stride;
};

template <Storage kStorage, int kRows, int kPanels>
void MultiplyTile(const TileArgs& args) {
  constexpr int64_t kPairBytes = 2 * kPanelOutputs * StorageBytes(kStorage);
  F32x16 sums[kRows][kPanels];
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) {
      sums[r][p] = args.resume ? Load(args.sums + r * args.sums_stride + p * kPanelOutputs) : Zero();
    }
  }

  const float* x = args.x;
  const int64_t x_stride = args.x_stride;
  const char* weight = args.weight;
  const int64_t panel_bytes = args.panel_bytes;
  const char* prefetch = args.prefetch;
  for (int64_t pair = 0; pair < args.k / 2; ++pair) {
    for (int p = 0; p < kPanels; ++p) {
      for (int64_t line = 0; line < kPairBytes; line += 64) {
        __builtin_prefetch(prefetch + p * panel_bytes + line, 0, kLocality);
      }
      F32x16 first;
      F32x16 second;
      LoadWeightPair<kStorage>(weight + p * panel_bytes, &first, &second);
      for (int r = 0; r < kRows; ++r) sums[r][p] = Fma(Set1(x[r * x_stride]), first, sums[r][p]);
      for (int r = 0; r < kRows; ++r) sums[r][p] = Fma(Set1(x[r * x_stride + 1]), second, sums[r][p]);
    }
    prefetch += args.prefetch_step;
    x += 2;
    weight += kPairBytes;
  }
  if (args.k % 2 != 0) {
    for (int p = 0; p < kPanels; ++p) {
      F32x16 first;
      F32x16 padding;
      LoadWeightPair<kStorage>(weight + p * panel_bytes, &first, &padding);
      for (int r = 0; r < kRows; ++r) sums[r][p] = Fma(Set1(x[r * x_stride]), first, sums[r][p]);
    }
  }

  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) Store(args.sums + r * args.sums_stride + p * kPanelOutputs, sums[r][p]);
  }
}

using TileFunction = void (*)(const TileArgs& args);

// MultiplyTile for `rows` and `panels`, a power of two up to TilePanels(rows).
template <Storage kStorage, int kRows = kMaxTileRows, int kPanels = TilePanels(kMaxTileRows)>
TileFunction FindTile(int rows, int panels) {
  if (rows == kRows && panels == kPanels) return MultiplyTile<kStorage, kRows, kPanels>;
  if constexpr (kPanels > 1) {
    return FindTile<kStorage, kRows, kPanels / 2>(rows, panels);
  } else if constexpr (kRows > 1) {
    return FindTile<kStorage, kRows - 1, TilePanels(kRows - 1)>(rows, panels);
  } else {
    return nullptr;
  }
}

inline TileFunction FindTile(Storage storage, int rows, int panels) {
  switch (storage) {
    case Storage::kFloat32:
      return FindTile<Storage::kFloat32>(rows, panels);
    case Storage::kBFloat16:
      return FindTile<Storage::kBFloat16>(rows, panels);
    default:
      return FindTile<Storage::kFloat16>(rows, panels);
  }
}

inline int64_t MinOf(int64_t a, int64_t b) { return a < b ? a : b; }

// A block of rows times a group of panels.
struct Block {
  int64_t row;
  int64_t rows;
  int64_t panel;
  int64_t panels;
  int64_t columns() const { return panels * kPanelOutputs; }
};

// Adds to `sums` [rows, columns] the products over columns [begin, begin + k) of x, starting at `packed` in packed K.
inline void MultiplyChunk(const MatmulArgs& args, const Block& block, const float* x, int64_t x_stride, int64_t packed,
                          int64_t k, bool resume, float* sums) {
  const int64_t num_tiles = (block.rows + kMaxTileRows - 1) / kMaxTileRows;
  const int panels_at_once = TilePanels(static_cast<int>((block.rows + num_tiles - 1) / num_tiles));
  TileArgs tile;
  tile.x_stride = x_stride;
  tile.panel_bytes = args.panel_bytes;
  tile.k = k;
  tile.resume = resume;
  const int64_t pair_bytes = 2 * kPanelOutputs * StorageBytes(args.storage);
  tile.prefetch_step = num_tiles == 1 ? pair_bytes : (pair_bytes + num_tiles - 1) / num_tiles;
  tile.sums_stride = block.columns();
  for (int64_t panel = 0; panel < block.panels;) {
    int panels = panels_at_once;
    while (panels > block.panels - panel) panels /= 2;
    tile.weight = static_cast<const char*>(args.weight) + (block.panel + panel) * args.panel_bytes +
                  packed * kPanelOutputs * StorageBytes(args.storage);
    // Tiles differ by one row at most.
    for (int64_t i = 0; i < num_tiles; ++i) {
      const int64_t row = block.rows * i / num_tiles;
      const int64_t rows = block.rows * (i + 1) / num_tiles - row;
      tile.x = x + row * x_stride;
      tile.prefetch = num_tiles == 1 ? tile.weight + kPrefetchBytes : tile.weight + panels * args.panel_bytes + k/2*tile.prefetch_step*i;
      tile.sums = sums + row * block.columns() + panel * kPanelOutputs;
      FindTile(args.storage, static_cast<int>(rows), panels)(tile);
    }
    panel += panels;
  }
}

// sums [rows, columns] = the products over one slice. `x_chunk` holds kBlockRows * kChunkStride floats.
inline void MultiplySlice(const MatmulArgs& args, const Block& block, int slice, float* x_chunk, float* sums) {
  const int64_t begin = args.slice_bounds[slice];
  const int64_t end = args.slice_bounds[slice + 1];
  const float* x = args.x + block.row * args.x_stride;
  if (block.rows <= kMaxTileRows || begin == end) {
    MultiplyChunk(args, block, x + begin, args.x_stride, args.packed_bounds[slice], end - begin, false, sums);
    return;
  }
  for (int64_t at = begin; at < end; at += kChunk) {
    const int64_t k = MinOf(kChunk, end - at);
    for (int64_t row = 0; row < block.rows; ++row) {
      std::memcpy(x_chunk + row * kChunkStride, x + row * args.x_stride + at, static_cast<size_t>(k) * sizeof(float));
    }
    MultiplyChunk(args, block, x_chunk, kChunkStride, args.packed_bounds[slice] + at - begin, k, at > begin, sums);
  }
}

inline void AddSums(const float* source, int64_t count, float* destination) {
  for (int64_t i = 0; i < count; i += 16) Store(destination + i, Add(Load(destination + i), Load(source + i)));
}

// All slices of a block, added up in a balanced tree: whenever two neighbouring subtrees of one size are complete they
// become one, as carries do in a binary counter. The result lies at the beginning of `sums`.
inline void MultiplyBlock(const MatmulArgs& args, const Block& block, float* x_chunk, float* sums) {
  const int64_t count = block.rows * block.columns();
  int depth = 0;
  for (int slice = 0; slice < args.num_slices; ++slice) {
    MultiplySlice(args, block, slice, x_chunk, sums + depth * count);
    ++depth;
    for (int complete = slice + 1; complete % 2 == 0; complete /= 2) {
      --depth;
      AddSums(sums + depth * count, count, sums + (depth - 1) * count);
    }
  }
}

inline void StoreBlock(const MatmulArgs& args, const Block& block, const float* sums) {
  for (int64_t row = 0; row < block.rows; ++row) {
    float* y = args.y + (block.row + row) * args.y_stride;
    for (int64_t panel = 0; panel < block.panels; ++panel) {
      const int64_t column = (block.panel + panel) * kPanelOutputs;
      const int count = static_cast<int>(MinOf(kPanelOutputs, args.n - column));
      F32x16 sum = Load(sums + row * block.columns() + panel * kPanelOutputs);
      if (args.bias != nullptr) sum = Add(sum, LoadPartial(args.bias + column, count));
      StorePartial(y + column, sum, count);
    }
  }
}

inline size_t MatmulScratchFloats() { return kBlockRows * (kSumColumns + kChunkStride); }

void Matmul(const MatmulArgs& args, int64_t panel_begin, int64_t panel_end) {
  int depth = 1;
  while ((1 << (depth - 1)) < args.num_slices) ++depth;
  float* const sums = args.scratch;
  float* const x_chunk = args.scratch + kBlockRows * kSumColumns;

  const int64_t num_row_blocks = (args.m + kBlockRows - 1) / kBlockRows;
  for (int64_t i = 0; i < num_row_blocks; ++i) {
    Block block;
    block.row = args.m * i / num_row_blocks;
    block.rows = args.m * (i + 1) / num_row_blocks - block.row;
    // With a single tile of rows nothing is read twice: whole panels then stream through, a few at a time.
    const int64_t group =
        block.rows <= kMaxTileRows ? TilePanels(static_cast<int>(block.rows)) : MinOf(GRP, kSumColumns / kPanelOutputs / depth);
    for (block.panel = panel_begin; block.panel < panel_end; block.panel += group) {
      block.panels = MinOf(group, panel_end - block.panel);
      MultiplyBlock(args, block, x_chunk, sums);
      StoreBlock(args, block, sums);
    }
  }
}

}  // namespace heddle::ops::cpu::HEDDLE_ISA
