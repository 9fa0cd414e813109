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

constexpr int64_t kSumColumns = 512;  // of all partial sums together, which stay in L2 beside the packed rows
constexpr int64_t kSumsFloats = kMaxPackedRows * kSumColumns;
// Two by two tiles of sums, for each slice; these stay in L1.
constexpr int64_t kTileSums = 4 * kTileRows * kPanelOutputs;
constexpr int64_t kTileSumsFloats = kMaxSlices * kTileSums;
// A pair of groups, for which each weight is used once: panel by panel, in the order of memory.
static_assert(kMaxStreamedRows == 2 * kTileRows);
// How far ahead of its use a weight is then asked for.
constexpr int64_t kStreamAhead = 4096;

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

// Rows of the slices' tiles that fit kPackedRowsBytes, in whole pairs of groups.
inline int64_t FittingRows(int64_t num_tiles) {
  return kPackedRowsBytes / (num_tiles * kTileBytes) * kTileRows / (2 * kTileRows) * (2 * kTileRows);
}

int64_t BlockRows(const MatmulArgs& args) {
  const int64_t rows = FittingRows(SliceTiles(args).longest);
  return rows < 2 * kTileRows ? 2 * kTileRows : MinOf(rows, kMaxPackedRows);
}

// Slices that panels pass at once: a power of two, so that their sum is a subtree of the whole.
inline int SlicesAtOnce(const MatmulArgs& args, const SliceTiles& slices) {
  int count = args.num_slices;
  while (count > 1 && FittingRows(count * slices.longest) < args.m) count /= 2;
  return count;
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

// One or two groups of rows times one or two panels over some tiles of K: sums = x * weight^T.
struct TileArgs {
  const char* x;        // tiles of the first group
  int64_t group_bytes;  // from a group to the next
  const char* weight;
  int64_t panel_bytes;
  int64_t num_tiles;
  float* sums;  // [groups * 16, ...], rows sums_bytes apart
  int64_t sums_bytes;
  int64_t ahead;  // where what is asked for with each tile of weights begins, counted from that tile
};

constexpr int kLinesOfTile = 16;

template <int kLines>
inline void PrefetchLines(const char* at) {
  for (int line = 0; line < kLines; ++line) __builtin_prefetch(at + line * kCacheLine, 0, 2);
}

// kLines of the 16 lines of each tile of weights are fetched ahead; all of them when weights are streamed, which rows
// of x then wait for in L1. In a large block all tiles come from L2, faster by loads that leave L1 alone.
template <int kGroups, int kPanels, int kLines>
void MultiplyTiles(const TileArgs& args) {
  constexpr bool kStream = kLines == kLinesOfTile;
  float* const second_rows = args.sums + kTileRows * args.sums_bytes / static_cast<int64_t>(sizeof(float));
  MemoryFence();
  _tile_zero(0);
  if constexpr (kPanels > 1) _tile_zero(1);
  if constexpr (kGroups > 1) _tile_zero(2);
  if constexpr (kGroups > 1 && kPanels > 1) _tile_zero(3);
  const char* x = args.x;
  const char* weight = args.weight;
  for (int64_t i = 0; i < args.num_tiles; ++i) {
    if constexpr (kStream) {
      _tile_loadd(4, x, kRowBytes);
    } else {
      _tile_stream_loadd(4, x, kRowBytes);
    }
    _tile_stream_loadd(6, weight, kRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    PrefetchLines<kLines>(weight + args.ahead);
    if constexpr (kPanels > 1) {
      _tile_stream_loadd(7, weight + args.panel_bytes, kRowBytes);
      _tile_dpbf16ps(1, 4, 7);
      PrefetchLines<kLines>(weight + args.panel_bytes + args.ahead);
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
  }
  _tile_stored(0, args.sums, args.sums_bytes);
  if constexpr (kPanels > 1) _tile_stored(1, args.sums + kPanelOutputs, args.sums_bytes);
  if constexpr (kGroups > 1) _tile_stored(2, second_rows, args.sums_bytes);
  if constexpr (kGroups > 1 && kPanels > 1) _tile_stored(3, second_rows + kPanelOutputs, args.sums_bytes);
}

template <int kLines>
void MultiplyTiles(int64_t groups, int64_t panels, const TileArgs& args) {
  if (groups > 1) return panels > 1 ? MultiplyTiles<2, 2, kLines>(args) : MultiplyTiles<2, 1, kLines>(args);
  return panels > 1 ? MultiplyTiles<1, 2, kLines>(args) : MultiplyTiles<1, 1, kLines>(args);
}

// One or two groups of rows times one or two panels of a block.
struct TilePair {
  int64_t group;
  int64_t groups;
  int64_t panel;
  int64_t panels;
};

// What all of one call share.
struct Product {
  const MatmulArgs& args;
  const SliceTiles& slices;
  int slices_at_once;
  const char* packed;
};

// sums, sums_bytes a row, = the products of the pair over one slice.
inline void MultiplySlice(const Product& product, const Block& block, const TilePair& pair, int slice, float* sums,
                          int64_t sums_bytes) {
  const MatmulArgs& args = product.args;
  const SliceTiles& slices = product.slices;
  TileArgs tile;
  tile.group_bytes = slices.total * kTileBytes;
  tile.x = product.packed + slices.before[slice] * kTileBytes + pair.group * tile.group_bytes;
  tile.panel_bytes = args.panel_bytes;
  tile.weight = static_cast<const char*>(args.weight) + (block.panel + pair.panel) * args.panel_bytes +
                args.packed_bounds[slice] * kPanelOutputs * static_cast<int64_t>(sizeof(uint16_t));
  tile.num_tiles = slices.before[slice + 1] - slices.before[slice];
  tile.sums = sums;
  tile.sums_bytes = sums_bytes;
  if (block.rows <= kMaxStreamedRows) {
    tile.ahead = kStreamAhead;
    return MultiplyTiles<kLinesOfTile>(pair.groups, pair.panels, tile);
  }
  // Weights that serve several pairs of groups are fetched a pair of panels ahead, a share with each.
  const int64_t num_pairs = (NumGroups(block.rows) + 1) / 2;
  const int64_t share = (kLinesOfTile + num_pairs - 1) / num_pairs;
  tile.ahead = pair.panels * args.panel_bytes + pair.group / 2 * share % kLinesOfTile * kCacheLine;
  if (share <= 2) return MultiplyTiles<2>(pair.groups, pair.panels, tile);
  if (share <= 4) return MultiplyTiles<4>(pair.groups, pair.panels, tile);
  return MultiplyTiles<8>(pair.groups, pair.panels, tile);
}

// The sums of a block over chunks of slices, joined in a balanced tree as the chunks come. As in a binary counter, a
// chunk joins all subtrees of its size that are complete before it takes their place: with one chunk to come there are
// log2(num_chunks) sums at most.
struct PartialSums {
  PartialSums(float* first_sums, int64_t floats, int chunk) : size(floats) {
    while ((chunk >> num_joined & 1) != 0) ++num_joined;
    int depth = -num_joined;
    for (; chunk != 0; chunk &= chunk - 1) ++depth;
    sums = first_sums + depth * size;
  }
  F32x16 Joined(F32x16 value, int64_t at) const {
    for (int i = num_joined - 1; i >= 0; --i) value = Add(Load(sums + i * size + at), value);
    return value;
  }
  float* sums;  // where this chunk's go; those that it joins begin here too, `size` apart
  int64_t size;
  int num_joined = 0;
};

// The sum over `kCount` neighbouring slices, as a balanced tree.
template <int kCount>
inline F32x16 SumTree(const float* sums) {
  if constexpr (kCount == 1) {
    return Load(sums);
  } else {
    return Add(SumTree<kCount / 2>(sums), SumTree<kCount / 2>(sums + kCount / 2 * kTileSums));
  }
}

// Sums over `kCount` slices and joins them to those before, for `rows` rows of some panels, beginning at `at`.
template <int kCount>
void SumTiles(const float* tile_sums, int64_t rows, int64_t panels, int64_t at, int64_t stride,
              const PartialSums& partial) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < panels * kPanelOutputs; i += kPanelOutputs) {
      const F32x16 sum = SumTree<kCount>(tile_sums + row * 2 * kPanelOutputs + i);
      const int64_t to = at + row * stride + i;
      Store(partial.sums + to, partial.Joined(sum, to));
    }
  }
}

inline void SumTiles(int count, const float* tile_sums, int64_t rows, int64_t panels, int64_t at, int64_t stride,
                     const PartialSums& partial) {
  switch (count) {
    case 1:
      return SumTiles<1>(tile_sums, rows, panels, at, stride, partial);
    case 2:
      return SumTiles<2>(tile_sums, rows, panels, at, stride, partial);
    case 4:
      return SumTiles<4>(tile_sums, rows, panels, at, stride, partial);
    default:
      return SumTiles<8>(tile_sums, rows, panels, at, stride, partial);
  }
}

// The products of a block over slices [begin, begin + slices_at_once), [rows up to whole groups, columns].
inline void MultiplySlices(const Product& product, const Block& block, int begin, float* tile_sums,
                           const PartialSums& partial) {
  const int64_t num_groups = NumGroups(block.rows);
  const int64_t panels_at_once = block.rows <= kMaxStreamedRows ? 1 : 2;
  for (int64_t panel = 0; panel < block.panels; panel += panels_at_once) {
    for (int64_t group = 0; group < num_groups; group += 2) {
      const TilePair pair{group, MinOf(2, num_groups - group), panel, MinOf(panels_at_once, block.panels - panel)};
      const int64_t at = group * kTileRows * block.columns() + panel * kPanelOutputs;
      if (product.args.num_slices == 1) {
        MultiplySlice(product, block, pair, begin, partial.sums + at,
                      block.columns() * static_cast<int64_t>(sizeof(float)));
        continue;
      }
      for (int i = 0; i < product.slices_at_once; ++i) {
        MultiplySlice(product, block, pair, begin + i, tile_sums + i * kTileSums, 2 * kPanelOutputs * sizeof(float));
      }
      SumTiles(product.slices_at_once, tile_sums, MinOf(block.rows - group * kTileRows, pair.groups * kTileRows),
               pair.panels, at, block.columns(), partial);
    }
  }
}

void Matmul(const MatmulArgs& args, const void* packed, int64_t panel_begin, int64_t panel_end) {
  ConfigureTiles(args.m);
  const SliceTiles slices(args);
  const int slices_at_once = SlicesAtOnce(args, slices);
  const int num_chunks = args.num_slices / slices_at_once;
  // The last chunk of all joins the sums before it takes a place of its own.
  const int64_t num_sums = num_chunks == 1 ? 1 : NumPartialSums(num_chunks) - 1;
  const int64_t group_panels = num_chunks == 1 ? 2 : kSumColumns / kPanelOutputs / num_sums;
  Block block{0, args.m, panel_begin, 0};
  for (; block.panel < panel_end; block.panel += block.panels) {
    block.panels = MinOf(group_panels, panel_end - block.panel);
    const int64_t size = NumGroups(block.rows) * kTileRows * block.columns();
    ComputeBlock(args, block, num_sums * size, [&](const MatmulArgs& half) {
      const Product product{half, slices, slices_at_once, static_cast<const char*>(packed)};
      for (int chunk = 0; chunk < num_chunks; ++chunk) {
        MultiplySlices(product, block, chunk * slices_at_once, half.scratch + kSumsFloats,
                       PartialSums(half.scratch, size, chunk));
      }
    });
  }
  _tile_release();
}

// The first half of a gated product stays before the scratch memory of the second.
size_t ScratchFloats() { return 2 * kSumsFloats + kTileSumsFloats; }

}  // namespace tiles

extern const PackedMatmulKernels kPackedMatmulKernels;
const PackedMatmulKernels kPackedMatmulKernels = {tiles::BlockRows, tiles::PackedBytes, tiles::kTileRows,
                                                  tiles::Pack,      tiles::Matmul,      tiles::ScratchFloats};

}  // namespace heddle::ops::cpu::HEDDLE_ISA
