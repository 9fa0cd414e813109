// Rows of x in tiles, and the products of a few tiles.
//
// A panel of weights is as tiles want it: 32 neighbours in K of its 16 outputs are 1 KiB, whole. Rows of x are rounded
// to bfloat16 and packed alike, in groups of 16 rows, every slice of K filled up with zeros to whole tiles. The last
// tile of a slice therefore reads weights of the next one, or of the next panel, and multiplies them by zero.
//
// One tile instruction sums 16 products of elements at even positions, 16 of those at odd ones, both upwards, and adds
// the two to the accumulator. A row's result depends on nothing else.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace tiles {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileK = 32;
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kRowBytes = 64;

// Two by two tiles of sums.
constexpr int64_t kTileSumColumns = 2 * kPanelOutputs;
constexpr int64_t kTileSums = 2 * kTileRows * kTileSumColumns;
constexpr int64_t kSumsRowBytes = kTileSumColumns * sizeof(float);
constexpr int64_t kSecondRows = kTileRows * kTileSumColumns;

constexpr int64_t TilesOf(int64_t k) { return (k + kTileK - 1) / kTileK; }

// The tiles of a group of rows, slice by slice.
struct SliceTiles {
  explicit SliceTiles(const MatmulArgs& args) {
    for (int s = 0; s < args.num_slices; ++s) {
      const int64_t count = TilesOf(args.slice_bounds[s + 1] - args.slice_bounds[s]);
      before[s + 1] = before[s] + count;
      longest = count > longest ? count : longest;
    }
    total = before[args.num_slices];
  }
  int64_t before[kMaxSlices + 1] = {};
  int64_t total = 0;
  int64_t longest = 1;
};

inline int64_t NumGroups(int64_t rows) { return (rows + kTileRows - 1) / kTileRows; }

// Rows of so many tiles that fit kPackedRowsBytes, in whole pairs of groups.
inline int64_t FittingRows(int64_t num_tiles) {
  return kPackedRowsBytes / (num_tiles * kTileBytes) * kTileRows / (2 * kTileRows) * (2 * kTileRows);
}

int64_t BlockRows(const MatmulArgs& args) {
  const int64_t rows = FittingRows(SliceTiles(args).longest);
  return rows < 2 * kTileRows ? 2 * kTileRows : MinOf(rows, kMaxPackedRows);
}

size_t PackedBytes(const MatmulArgs& args) {
  return static_cast<size_t>(NumGroups(args.m) * SliceTiles(args).total * kTileBytes);
}

// 32 neighbours of a row of x, of which `count` exist, as a row of a tile.
inline void PackTileRow(const float* x, int64_t count, char* row) {
  const F32x16 first = LoadPartial(x, static_cast<int>(count < 16 ? count : 16));
  const F32x16 second = count > 16 ? LoadPartial(x + 16, static_cast<int>(count - 16)) : Zero();
  _mm512_storeu_si512(row, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second.v, first.v)));
}

void Pack(const MatmulArgs& args, int64_t begin, int64_t end, void* packed) {
  const int64_t group_tiles = SliceTiles(args).total;
  for (int64_t row = begin * kTileRows; row < end * kTileRows; ++row) {
    char* out = static_cast<char*>(packed) + row / kTileRows * group_tiles * kTileBytes + row % kTileRows * kRowBytes;
    if (row >= args.m) {
      if (args.m <= kTileRows) break;  // the only group is multiplied in tiles of so many rows
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

// One or two groups of rows times one or two panels over some tiles of K. The sums, two by two tiles, stay in the tile
// registers.
struct TileArgs {
  const char* x;        // tiles of the first group
  int64_t group_bytes;  // from a group to the next
  const char* weight;
  int64_t panel_bytes;
  int64_t num_tiles;
  const float* sums;  // to add to, or null
  const char* next;   // weights of the first panel that are asked for meanwhile
};

constexpr int kLinesOfTile = 16;

template <int kLines>
inline void PrefetchLines(const char* at) {
  for (int line = 0; line < kLines; ++line) __builtin_prefetch(at + line * kCacheLine, 0, 2);
}

// With each tile of weights kLines of those to come are asked for: all 16 of a tile where weights are streamed, a panel
// at a time, which rows of x wait for in L1. In a block it is the other way round: weights stay in L1 while rows come
// from L2, by loads that leave L1 alone.
template <int kGroups, int kPanels, int kLines>
void MultiplyTiles(const TileArgs& args) {
  constexpr bool kStream = kLines == kLinesOfTile;
  static_assert(!kStream || kPanels == 1);
  MemoryFence();
  if (args.sums != nullptr) {
    _tile_loadd(0, args.sums, kSumsRowBytes);
    if constexpr (kPanels > 1) _tile_loadd(1, args.sums + kPanelOutputs, kSumsRowBytes);
    if constexpr (kGroups > 1) _tile_loadd(2, args.sums + kSecondRows, kSumsRowBytes);
    if constexpr (kGroups > 1 && kPanels > 1) _tile_loadd(3, args.sums + kSecondRows + kPanelOutputs, kSumsRowBytes);
  } else {
    _tile_zero(0);
    if constexpr (kPanels > 1) _tile_zero(1);
    if constexpr (kGroups > 1) _tile_zero(2);
    if constexpr (kGroups > 1 && kPanels > 1) _tile_zero(3);
  }
  const char* x = args.x;
  const char* weight = args.weight;
  const char* next = args.next;
  for (int64_t i = 0; i < args.num_tiles; ++i) {
    if constexpr (kStream) {
      _tile_loadd(4, x, kRowBytes);
      _tile_stream_loadd(6, weight, kRowBytes);
    } else {
      _tile_stream_loadd(4, x, kRowBytes);
      _tile_loadd(6, weight, kRowBytes);
    }
    _tile_dpbf16ps(0, 4, 6);
    PrefetchLines<kLines>(next);
    if constexpr (kPanels > 1) {
      _tile_loadd(7, weight + args.panel_bytes, kRowBytes);
      _tile_dpbf16ps(1, 4, 7);
      PrefetchLines<kLines>(next + args.panel_bytes);
    }
    if constexpr (kGroups > 1) {
      if constexpr (kStream) {
        _tile_loadd(5, x + args.group_bytes, kRowBytes);
      } else {
        _tile_stream_loadd(5, x + args.group_bytes, kRowBytes);
      }
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (kPanels > 1) _tile_dpbf16ps(3, 5, 7);
    }
    x += kTileBytes;
    weight += kTileBytes;
    next += kLines * kCacheLine;
  }
}

inline void MultiplyStreamedTiles(int64_t groups, const TileArgs& args) {
  return groups > 1 ? MultiplyTiles<2, 1, kLinesOfTile>(args) : MultiplyTiles<1, 1, kLinesOfTile>(args);
}

template <int kLines>
void MultiplyBlockTiles(int64_t groups, int64_t panels, const TileArgs& args) {
  if (groups > 1) return panels > 1 ? MultiplyTiles<2, 2, kLines>(args) : MultiplyTiles<2, 1, kLines>(args);
  return panels > 1 ? MultiplyTiles<1, 2, kLines>(args) : MultiplyTiles<1, 1, kLines>(args);
}

// sums [32, 32] = the tile registers. The matrix unit is still busy with them: what does not need them comes before.
void StoreTiles(int64_t groups, int64_t panels, float* sums) {
  _tile_stored(0, sums, kSumsRowBytes);
  if (panels > 1) _tile_stored(1, sums + kPanelOutputs, kSumsRowBytes);
  if (groups > 1) _tile_stored(2, sums + kSecondRows, kSumsRowBytes);
  if (groups > 1 && panels > 1) _tile_stored(3, sums + kSecondRows + kPanelOutputs, kSumsRowBytes);
  MemoryFence();
}

}  // namespace tiles
}  // namespace heddle::ops::cpu::HEDDLE_ISA
