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

// Tiles of K of two panels, 32 KiB, that stay in L1 while rows pass by.
constexpr int64_t kPartTiles = 16;
// Two by two tiles of sums.
constexpr int64_t kTileSumColumns = 2 * kPanelOutputs;
constexpr int64_t kTileSums = 2 * kTileRows * kTileSumColumns;
constexpr int64_t kSumsRowBytes = kTileSumColumns * sizeof(float);
constexpr int64_t kSecondRows = kTileRows * kTileSumColumns;
// Of two pairs of groups for each slice, or of every pair of groups.
constexpr int64_t kTileSumsFloats = 2 * kMaxSlices * kTileSums;
static_assert(2 * kMaxSlices >= kMaxPackedRows / kTileRows / 2);
constexpr int64_t kPassSumsFloats = kMaxPackedRows * kTileSumColumns;  // of one partial sum over passes
constexpr int64_t kSumColumns = 512;                                   // of all partial sums over chunks together
constexpr int64_t kSumsFloats = kMaxPackedRows * kSumColumns;
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

// With each tile of weights kLines of those to come are asked for: all 16 of a tile where weights are streamed, which
// rows of x wait for in L1. In a block it is the other way round: weights stay in L1 while rows come from L2, by loads
// that leave L1 alone.
template <int kGroups, int kPanels, int kLines>
void MultiplyTiles(const TileArgs& args) {
  constexpr bool kStream = kLines == kLinesOfTile;
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
      if constexpr (kStream) {
        _tile_stream_loadd(7, weight + args.panel_bytes, kRowBytes);
      } else {
        _tile_loadd(7, weight + args.panel_bytes, kRowBytes);
      }
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

template <int kLines>
void MultiplyTiles(int64_t groups, int64_t panels, const TileArgs& args) {
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

// The sums of parts of K, `size` floats each, joined in a balanced tree as the parts come. As in a binary counter, a
// part joins all subtrees of its size that are complete before it takes their place: with one part to come there are
// log2(num_parts) sums at most.
struct PartialSums {
  PartialSums(float* first_sums, int64_t floats, int part) : size(floats) {
    while ((part >> num_joined & 1) != 0) ++num_joined;
    int depth = -num_joined;
    for (; part != 0; part &= part - 1) ++depth;
    sums = first_sums + depth * size;
  }
  F32x16 Joined(F32x16 value, int64_t at) const {
    for (int i = num_joined - 1; i >= 0; --i) value = Add(Load(sums + i * size + at), value);
    return value;
  }
  float* sums;  // where this part's go; those that it joins begin here too, `size` apart
  int64_t size;
  int num_joined = 0;
};

// Sums that PartialSums keeps: the last part of all joins those before it and takes a place of its own in none.
constexpr int64_t NumSumsKept(int num_parts) { return num_parts == 1 ? 1 : NumPartialSums(num_parts) - 1; }

// The sum over `kCount` neighbouring slices, as a balanced tree.
template <int kCount>
inline F32x16 SumTree(const float* sums) {
  if constexpr (kCount == 1) {
    return Load(sums);
  } else {
    return Add(SumTree<kCount / 2>(sums), SumTree<kCount / 2>(sums + kCount / 2 * kTileSums));
  }
}

// Calls take(row, panel, sum over `kCount` slices) for some rows and panels of two by two tiles.
template <int kCount, typename Take>
void SumTiles(const float* tile_sums, int64_t rows, int64_t panels, const Take& take) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t panel = 0; panel < panels; ++panel) {
      take(row, panel, SumTree<kCount>(tile_sums + row * kTileSumColumns + panel * kPanelOutputs));
    }
  }
}

template <typename Take>
void SumTiles(int count, const float* tile_sums, int64_t rows, int64_t panels, const Take& take) {
  switch (count) {
    case 1:
      return SumTiles<1>(tile_sums, rows, panels, take);
    case 2:
      return SumTiles<2>(tile_sums, rows, panels, take);
    case 4:
      return SumTiles<4>(tile_sums, rows, panels, take);
    default:
      return SumTiles<8>(tile_sums, rows, panels, take);
  }
}

// What all of one call share.
struct Product {
  const MatmulArgs& args;
  const SliceTiles& slices;
  const char* packed;

  const char* RowsAt(int64_t group, int slice) const {
    return packed + (group * slices.total + slices.before[slice]) * kTileBytes;
  }
  const char* WeightAt(int64_t panel, int slice) const {
    return static_cast<const char*>(args.weight) + panel * args.panel_bytes +
           args.packed_bounds[slice] * kPanelOutputs * static_cast<int64_t>(sizeof(uint16_t));
  }
  int64_t NumTiles(int slice) const { return slices.before[slice + 1] - slices.before[slice]; }
};

// A few rows times one panel, each weight used once.
template <typename Finish>
void StreamPanel(const Product& product, int64_t panel, float* tile_sums, const Finish& finish) {
  const MatmulArgs& args = product.args;
  const int64_t groups = NumGroups(args.m);
  TileArgs tile{};
  tile.group_bytes = product.slices.total * kTileBytes;
  for (int slice = 0; slice < args.num_slices; ++slice) {
    tile.x = product.RowsAt(0, slice);
    tile.weight = product.WeightAt(panel, slice);
    tile.num_tiles = product.NumTiles(slice);
    tile.next = tile.weight + kStreamAhead;
    MultiplyTiles<kLinesOfTile>(groups, 1, tile);
    StoreTiles(groups, 1, tile_sums + slice * kTileSums);
  }
  SumTiles(args.num_slices, tile_sums, args.m, 1, [&](int64_t row, int64_t, F32x16 sum) { finish(row, panel, sum); });
}

// How a block's K is cut, from the outside in. A chunk is some slices whose packed rows stay in L2 while all panels of
// the block pass by; a pass is some of these slices, or one, whose weights stay in L1 while all rows pass by, one part
// of at most kPartTiles tiles after the other.
struct Cut {
  Cut(const MatmulArgs& args, const SliceTiles& slices)
      : slices_a_chunk(
            SlicesThatFit(args.num_slices, [&](int count) { return FittingRows(count * slices.longest) >= args.m; })),
        slices_a_pass(SlicesThatFit(slices_a_chunk, [&](int count) { return count * slices.longest <= kPartTiles; })),
        num_chunks(args.num_slices / slices_a_chunk),
        num_passes(slices_a_chunk / slices_a_pass) {}
  // A power of two up to `most`, so that their sum is a subtree of the whole.
  template <typename Fit>
  static int SlicesThatFit(int most, const Fit& fit) {
    int count = most;
    while (count > 1 && !fit(count)) count /= 2;
    return count;
  }
  int slices_a_chunk;
  int slices_a_pass;
  int num_chunks;
  int num_passes;  // of a chunk
};

// Two panels of a block, or one.
struct PanelPair {
  int64_t panel;
  int64_t panels;
  const char* next;  // the weights of the pair that comes after this one, where this pass begins
};

// Calls rows_done(first_row, tile_sums) for every pair of groups of rows, when their products over the slices of a pass
// lie in tile_sums, slice by slice.
template <typename RowsDone>
void MultiplyPass(const Product& product, const Cut& cut, const PanelPair& pair, int first_slice, float* tile_sums,
                  const RowsDone& rows_done) {
  const int64_t num_groups = NumGroups(product.args.m);
  const int64_t num_row_pairs = (num_groups + 1) / 2;
  const int64_t lines = (kLinesOfTile + num_row_pairs - 1) / num_row_pairs;
  const int64_t num_parts =
      cut.slices_a_pass > 1 ? 1 : MaxOf(1, (product.NumTiles(first_slice) + kPartTiles - 1) / kPartTiles);
  TileArgs tile{};
  tile.group_bytes = product.slices.total * kTileBytes;
  tile.panel_bytes = product.args.panel_bytes;
  const float* sums_before = nullptr;  // of the pair before, taken while the matrix unit is busy with this one
  for (int64_t part = 0; part < num_parts; ++part) {
    const bool last_part = part + 1 == num_parts;
    for (int64_t group = 0; group < num_groups; group += 2) {
      const int64_t groups = MinOf(2, num_groups - group);
      float* const sums = tile_sums + (num_parts == 1 ? group / 2 % 2 * cut.slices_a_pass : group / 2) * kTileSums;
      for (int i = 0; i < cut.slices_a_pass; ++i) {
        const int slice = first_slice + i;
        const int64_t at = part * kPartTiles * kTileBytes;
        tile.num_tiles =
            num_parts == 1 ? product.NumTiles(slice) : MinOf(kPartTiles, product.NumTiles(slice) - part * kPartTiles);
        tile.x = product.RowsAt(group, slice) + at;
        tile.weight = product.WeightAt(pair.panel, slice) + at;
        tile.next = pair.next + (tile.weight - product.WeightAt(pair.panel, first_slice)) +
                    group / 2 * lines % kLinesOfTile * kCacheLine * tile.num_tiles;
        tile.sums = part > 0 ? sums : nullptr;
        if (lines <= 2) {
          MultiplyTiles<2>(groups, pair.panels, tile);
        } else if (lines <= 4) {
          MultiplyTiles<4>(groups, pair.panels, tile);
        } else {
          MultiplyTiles<8>(groups, pair.panels, tile);
        }
        if (last_part && i == 0 && group > 0) rows_done((group - 2) * kTileRows, sums_before);
        StoreTiles(groups, pair.panels, sums + i * kTileSums);
      }
      sums_before = sums;
    }
  }
  rows_done((num_row_pairs - 1) * 2 * kTileRows, sums_before);
}

// Many rows: panels two by two.
template <typename Finish>
void MultiplyBlock(const Product& product, const Block& block, const Cut& cut, float* scratch, const Finish& finish) {
  float* const tile_sums = scratch + kSumsFloats;
  float* const pass_sums = tile_sums + kTileSumsFloats;
  const int64_t columns = block.columns();
  for (int chunk = 0; chunk < cut.num_chunks; ++chunk) {
    const PartialSums of_chunk(scratch, block.rows * columns, chunk);
    for (int64_t panel = 0; panel < block.panels; panel += 2) {
      const bool last_pair = panel + 2 >= block.panels;
      const bool last_chunk = chunk + 1 == cut.num_chunks;
      for (int pass = 0; pass < cut.num_passes; ++pass) {
        const PartialSums of_pass(pass_sums, kPassSumsFloats, pass);
        const bool last_pass = pass + 1 == cut.num_passes;
        const int first_slice = chunk * cut.slices_a_chunk + pass * cut.slices_a_pass;
        PanelPair pair;
        pair.panel = block.panel + panel;
        pair.panels = MinOf(2, block.panels - panel);
        pair.next = last_pair && !last_chunk
                        ? product.WeightAt(block.panel, first_slice + cut.slices_a_chunk)
                        : product.WeightAt(pair.panel + 2, last_pair ? pass * cut.slices_a_pass : first_slice);
        MultiplyPass(product, cut, pair, first_slice, tile_sums, [&](int64_t first_row, const float* sums) {
          const int64_t rows = MinOf(2 * kTileRows, block.rows - first_row);
          SumTiles(cut.slices_a_pass, sums, rows, pair.panels, [&](int64_t tile_row, int64_t tile_panel, F32x16 sum) {
            const int64_t row = first_row + tile_row;
            const int64_t at = row * kTileSumColumns + tile_panel * kPanelOutputs;
            sum = of_pass.Joined(sum, at);
            if (!last_pass) return Store(of_pass.sums + at, sum);
            const int64_t in_block = row * columns + (panel + tile_panel) * kPanelOutputs;
            sum = of_chunk.Joined(sum, in_block);
            if (!last_chunk) return Store(of_chunk.sums + in_block, sum);
            finish(row, pair.panel + tile_panel, sum);
          });
        });
      }
    }
  }
}

void Matmul(const MatmulArgs& args, const void* packed, int64_t panel_begin, int64_t panel_end) {
  ConfigureTiles(args.m);
  const SliceTiles slices(args);
  const bool streams = args.m <= kMaxStreamedRows;
  const Cut cut(args, slices);
  const int64_t block_panels = streams               ? 1
                               : cut.num_chunks == 1 ? 2
                                                     : kSumColumns / kPanelOutputs / NumSumsKept(cut.num_chunks);
  Block block{0, args.m, panel_begin, 0};
  for (; block.panel < panel_end; block.panel += block.panels) {
    block.panels = MinOf(block_panels, panel_end - block.panel);
    ComputeBlock(args, block, [&](const MatmulArgs& half, const auto& finish) {
      const Product product{half, slices, static_cast<const char*>(packed)};
      if (streams) {
        StreamPanel(product, block.panel, half.scratch, finish);
      } else {
        MultiplyBlock(product, block, cut, half.scratch, finish);
      }
    });
  }
  StreamFence();
  _tile_release();
}

// The first half of a gated product stays before the scratch memory of the second.
size_t ScratchFloats() { return 2 * kSumsFloats + kTileSumsFloats + NumSumsKept(kMaxSlices) * kPassSumsFloats; }

}  // namespace tiles

extern const PackedMatmulKernels kPackedMatmulKernels;
const PackedMatmulKernels kPackedMatmulKernels = {tiles::BlockRows, tiles::PackedBytes, tiles::kTileRows,
                                                  tiles::Pack,      tiles::Matmul,      tiles::ScratchFloats};

}  // namespace heddle::ops::cpu::HEDDLE_ISA
