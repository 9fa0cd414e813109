// y = x * weight^T for bfloat16 weights, in AMX tiles.
//
// A panel is as tiles want it: 32 neighbours in K of its 16 outputs are 1 KiB, whole. Rows of x are rounded to bfloat16
// and packed alike, in groups of 16 rows, every slice of K filled up with zeros to whole tiles. The last tile of a
// slice therefore reads weights of the next one, or of the next panel, and multiplies them by zero.
//
// One tile instruction sums 16 products of elements at even positions, 16 of those at odd ones, both upwards, and adds
// the two to the accumulator. A row's result depends on nothing else, so one kernel serves every batch: a few rows
// stream the weights at the speed of memory, many are blocked for the caches, and the bits are the same.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace tiles {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileK = 32;
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kRowBytes = 64;

constexpr int64_t kMaxBlockRows = 256;
constexpr int64_t kBlockBytes = 1 << 20;  // of packed rows that stay in L2 while panels pass by
constexpr int64_t kMaxGroupPanels = 16;   // whose sums stay in L2 beside them
constexpr int64_t kSumColumns = 512;      // of all partial sums together
constexpr int64_t kSumsFloats = kMaxBlockRows * kSumColumns;
// Two by two tiles of sums, for each of at most four partial sums; these stay in L1.
constexpr int64_t kTileSums = 4 * kTileRows * kPanelOutputs;
constexpr int64_t kTileSumsFloats = 4 * kTileSums;
// How far ahead of its use a weight is asked for when each is used once.
constexpr int64_t kStreamAhead = 4096;

constexpr int64_t TilesOf(int64_t k) { return (k + kTileK - 1) / kTileK; }

// Tiles of a row group before those of `slice`.
inline int64_t TilesBefore(const MatmulArgs& args, int slice) {
  int64_t count = 0;
  for (int s = 0; s < slice; ++s) count += TilesOf(args.slice_bounds[s + 1] - args.slice_bounds[s]);
  return count;
}

inline int64_t NumGroups(int64_t rows) { return (rows + kTileRows - 1) / kTileRows; }

// Rows of the slices' tiles that fit kBlockBytes, in whole pairs of groups.
inline int64_t FittingRows(int64_t num_tiles) {
  return kBlockBytes / (num_tiles * kTileBytes) * kTileRows / (2 * kTileRows) * (2 * kTileRows);
}

inline int64_t TilesOfLongestSlice(const MatmulArgs& args) {
  int64_t longest = 1;
  for (int s = 0; s < args.num_slices; ++s) {
    const int64_t count = TilesOf(args.slice_bounds[s + 1] - args.slice_bounds[s]);
    if (count > longest) longest = count;
  }
  return longest;
}

int64_t BlockRows(const MatmulArgs& args) {
  const int64_t rows = FittingRows(TilesOfLongestSlice(args));
  return rows < 2 * kTileRows ? 2 * kTileRows : MinOf(rows, kMaxBlockRows);
}

// Slices that panels pass at once: a power of two, so that their sum is a subtree of the whole.
inline int SlicesAtOnce(const MatmulArgs& args) {
  const int64_t longest = TilesOfLongestSlice(args);
  int count = args.num_slices;
  while (count > 1 && FittingRows(count * longest) < args.m) count /= 2;
  return count;
}

size_t PackedBytes(const MatmulArgs& args) {
  return static_cast<size_t>(NumGroups(args.m) * TilesBefore(args, args.num_slices) * kTileBytes);
}

// 32 neighbours of a row of x, of which `count` exist, as a row of a tile.
inline void PackTileRow(const float* x, int64_t count, char* row) {
  const F32x16 first = LoadPartial(x, static_cast<int>(count < 16 ? count : 16));
  const F32x16 second = count > 16 ? LoadPartial(x + 16, static_cast<int>(count - 16)) : Zero();
  _mm512_storeu_si512(row, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second.v, first.v)));
}

void Pack(const MatmulArgs& args, int64_t begin, int64_t end, void* packed) {
  const int64_t group_tiles = TilesBefore(args, args.num_slices);
  for (int64_t row = begin * kTileRows; row < end * kTileRows; ++row) {
    char* out = static_cast<char*>(packed) + row / kTileRows * group_tiles * kTileBytes + row % kTileRows * kRowBytes;
    if (row >= args.m) {
      for (int64_t i = 0; i < group_tiles; ++i) _mm512_storeu_si512(out + i * kTileBytes, _mm512_setzero_si512());
      continue;
    }
    const float* x = args.x + row * args.x_stride;
    for (int s = 0; s < args.num_slices; ++s) {
      for (int64_t k = args.slice_bounds[s]; k < args.slice_bounds[s + 1]; k += kTileK) {
        PackTileRow(x + k, MinOf(kTileK, args.slice_bounds[s + 1] - k), out);
        out += kTileBytes;
      }
    }
  }
}

// What the tile registers hold: tiles 0 to 3 sums, 4 and 5 rows of x, 6 and 7 weights.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// The compiler does not know what tile loads read.
inline void MemoryFence() { asm volatile("" ::: "memory"); }

inline void ConfigureTiles(int64_t rows) {
  TileConfig config;
  for (int tile = 0; tile < 6; ++tile) config.rows[tile] = static_cast<uint8_t>(MinOf(rows, kTileRows));
  MemoryFence();
  _tile_loadconfig(&config);
}

// One or two groups of rows times one or two panels over some tiles of K.
struct TileArgs {
  const char* x;        // tiles of the first group
  int64_t group_bytes;  // from a group to the next
  const char* weight;
  int64_t panel_bytes;
  int64_t num_tiles;
  float* sums;  // [groups * 16, ...], rows sums_bytes apart
  int64_t sums_bytes;
  // Meanwhile these of the 16 lines of each tile of weights are asked for, `ahead` bytes further on.
  int64_t ahead;
  int line_begin;
  int line_end;
  bool prefetch_x;  // and the tiles of the next two groups
};

inline void PrefetchLines(const TileArgs& args, const char* weight) {
  for (int line = args.line_begin; line < args.line_end; ++line) {
    __builtin_prefetch(weight + args.ahead + line * kCacheLine, 0, 2);
  }
}

template <int kGroups, int kPanels>
void MultiplyTiles(const TileArgs& args) {
  float* const second_rows = args.sums + kTileRows * args.sums_bytes / static_cast<int64_t>(sizeof(float));
  MemoryFence();
  _tile_zero(0);
  if constexpr (kPanels > 1) _tile_zero(1);
  if constexpr (kGroups > 1) _tile_zero(2);
  if constexpr (kGroups > 1 && kPanels > 1) _tile_zero(3);
  const char* x = args.x;
  const char* weight = args.weight;
  for (int64_t i = 0; i < args.num_tiles; ++i) {
    _tile_loadd(4, x, kRowBytes);
    _tile_loadd(6, weight, kRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    PrefetchLines(args, weight);
    if constexpr (kPanels > 1) {
      _tile_loadd(7, weight + args.panel_bytes, kRowBytes);
      _tile_dpbf16ps(1, 4, 7);
      PrefetchLines(args, weight + args.panel_bytes);
    }
    if (args.prefetch_x) {
      for (int line = 0; line < 16; ++line) {
        __builtin_prefetch(x + 2 * args.group_bytes + line * kCacheLine);
        __builtin_prefetch(x + 3 * args.group_bytes + line * kCacheLine);
      }
    }
    if constexpr (kGroups > 1) {
      _tile_loadd(5, x + args.group_bytes, kRowBytes);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kPanels > 1) _tile_dpbf16ps(3, 5, 7);
    }
    x += kTileBytes;
    weight += kTileBytes;
  }
  _tile_stored(0, args.sums, args.sums_bytes);
  if constexpr (kPanels > 1) _tile_stored(1, args.sums + kPanelOutputs, args.sums_bytes);
  if constexpr (kGroups > 1) _tile_stored(2, second_rows, args.sums_bytes);
  if constexpr (kGroups > 1 && kPanels > 1) _tile_stored(3, second_rows + kPanelOutputs, args.sums_bytes);
}

inline void MultiplyTiles(int64_t groups, int64_t panels, const TileArgs& args) {
  if (groups > 1) return panels > 1 ? MultiplyTiles<2, 2>(args) : MultiplyTiles<2, 1>(args);
  return panels > 1 ? MultiplyTiles<1, 2>(args) : MultiplyTiles<1, 1>(args);
}

// A pair of groups of rows times a pair of panels of a block, either perhaps alone.
struct TilePair {
  int64_t group;
  int64_t groups;
  int64_t panel;
  int64_t panels;
};

// sums, sums_bytes a row, = the products of the pair over one slice.
inline void MultiplySlice(const MatmulArgs& args, const void* packed, const Block& block, const TilePair& pair,
                          int slice, float* sums, int64_t sums_bytes) {
  const int64_t num_pairs = (NumGroups(block.rows) + 1) / 2;
  TileArgs tile;
  tile.group_bytes = TilesBefore(args, args.num_slices) * kTileBytes;
  tile.x = static_cast<const char*>(packed) + TilesBefore(args, slice) * kTileBytes + pair.group * tile.group_bytes;
  tile.panel_bytes = args.panel_bytes;
  tile.weight = static_cast<const char*>(args.weight) + (block.panel + pair.panel) * args.panel_bytes +
                args.packed_bounds[slice] * kPanelOutputs * static_cast<int64_t>(sizeof(uint16_t));
  tile.num_tiles = TilesOf(args.slice_bounds[slice + 1] - args.slice_bounds[slice]);
  tile.sums = sums;
  tile.sums_bytes = sums_bytes;
  // Weights that serve several pairs of groups are fetched a pair of panels ahead, a share with each.
  tile.ahead = num_pairs == 1 ? kStreamAhead : pair.panels * args.panel_bytes;
  tile.line_begin = static_cast<int>(16 * (pair.group / 2) / num_pairs);
  tile.line_end = static_cast<int>(16 * (pair.group / 2 + 1) / num_pairs);
  tile.prefetch_x = pair.panel == 0 && pair.group + 2 < NumGroups(block.rows);
  MultiplyTiles(pair.groups, pair.panels, tile);
}

// sums [rows up to whole groups, columns] = the products over slices [begin, begin + count), their subtree summed.
inline void MultiplySlices(const MatmulArgs& args, const void* packed, const Block& block, int begin, int count,
                           float* tile_sums, float* sums) {
  constexpr int64_t kPairColumns = 2 * kPanelOutputs;
  const int64_t num_groups = NumGroups(block.rows);
  const int64_t sums_bytes = block.columns() * static_cast<int64_t>(sizeof(float));
  for (int64_t panel = 0; panel < block.panels; panel += 2) {
    for (int64_t group = 0; group < num_groups; group += 2) {
      const TilePair pair{group, MinOf(2, num_groups - group), panel, MinOf(2, block.panels - panel)};
      float* const out = sums + group * kTileRows * block.columns() + panel * kPanelOutputs;
      if (count == 1) {
        MultiplySlice(args, packed, block, pair, begin, out, sums_bytes);
        continue;
      }
      const int64_t rows = pair.groups * kTileRows;
      SumSlices(count, rows * kPairColumns, tile_sums, [&](int slice, float* slice_sums) {
        MultiplySlice(args, packed, block, pair, begin + slice, slice_sums, kPairColumns * sizeof(float));
      });
      for (int64_t row = 0; row < rows; ++row) {
        for (int64_t i = 0; i < pair.panels * kPanelOutputs; i += kPanelOutputs) {
          Store(out + row * block.columns() + i, Load(tile_sums + row * kPairColumns + i));
        }
      }
    }
  }
}

// The sums of a block, where the scratch memory begins; whole groups of rows.
inline void MultiplyBlock(const MatmulArgs& args, const void* packed, const Block& block, int slices_at_once) {
  float* const tile_sums = args.scratch + kSumsFloats;
  const int64_t num_sums = NumGroups(block.rows) * kTileRows * block.columns();
  SumSlices(args.num_slices / slices_at_once, num_sums, args.scratch, [&](int chunk, float* sums) {
    MultiplySlices(args, packed, block, chunk * slices_at_once, slices_at_once, tile_sums, sums);
  });
}

void Matmul(const MatmulArgs& args, const void* packed, int64_t panel_begin, int64_t panel_end) {
  ConfigureTiles(args.m);
  const int slices_at_once = SlicesAtOnce(args);
  const int num_chunks = args.num_slices / slices_at_once;
  const int64_t group_panels =
      num_chunks == 1 ? 2 : MinOf(kMaxGroupPanels, kSumColumns / kPanelOutputs / NumPartialSums(num_chunks));
  Block block{0, args.m, panel_begin, 0};
  for (; block.panel < panel_end; block.panel += block.panels) {
    block.panels = MinOf(group_panels, panel_end - block.panel);
    ComputeBlock(args, block, NumGroups(block.rows) * kTileRows * block.columns(),
                 [&](const MatmulArgs& half) { MultiplyBlock(half, packed, block, slices_at_once); });
  }
  _tile_release();
}

// The first half of a gated product stays before the scratch memory of the second.
size_t ScratchFloats() { return 2 * kSumsFloats + kTileSumsFloats; }

}  // namespace tiles

extern const TileMatmulKernels kTileMatmulKernels;
const TileMatmulKernels kTileMatmulKernels = {tiles::BlockRows, tiles::PackedBytes, tiles::Pack, tiles::Matmul,
                                              tiles::ScratchFloats};

}  // namespace heddle::ops::cpu::HEDDLE_ISA
