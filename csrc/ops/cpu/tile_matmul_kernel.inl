// y = x * weight^T for bfloat16 weights, in AMX tiles. One kernel serves every batch: a few rows stream the weights at
// the speed of memory, many are blocked for the caches, and the bits are the same.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace tiles {

// Tiles of K of two panels, 32 KiB, that stay in L1 while rows pass by.
constexpr int64_t kPartTiles = 16;
// A pair of groups, for which each weight is used once: panel by panel, in the order of memory.
static_assert(kMaxStreamedRows == 2 * kTileRows);
// How far ahead of its use a weight is then asked for.
constexpr int64_t kStreamAhead = 4096;

// Sums of two pairs of groups for each slice, or of every pair of groups.
constexpr int64_t kTileSumsFloats = 2 * kMaxSlices * kTileSums;
static_assert(2 * kMaxSlices >= kMaxPackedRows / kTileRows / 2);
constexpr int64_t kPassSumsFloats = kMaxPackedRows * kTileSumColumns;  // of one partial sum over passes
constexpr int64_t kChunkSumColumns = 512;                              // of all partial sums over chunks together
constexpr int64_t kChunkSumsFloats = kMaxPackedRows * kChunkSumColumns;

// The sums of passes or of chunks, `size` floats each, joined in a balanced tree as they come, like SumSlices but
// without storing what is joined at once. As in a binary counter, number `index` joins all subtrees of its size that
// are complete and takes their place: before the last of `count` there are log2(count) sums at most.
struct PartialSums {
  PartialSums(float* first_sums, int64_t floats, int index) : size(floats) {
    while ((index >> num_joined & 1) != 0) ++num_joined;
    int depth = -num_joined;
    for (; index != 0; index &= index - 1) ++depth;
    sums = first_sums + depth * size;
  }
  F32x16 Joined(F32x16 value, int64_t at) const {
    for (int i = num_joined - 1; i >= 0; --i) value = Add(Load(sums + i * size + at), value);
    return value;
  }
  float* sums;  // where this one's go; those that it joins begin here too, `size` apart
  int64_t size;
  int num_joined = 0;
};

// Sums that PartialSums keeps: the last of `count` joins those before it and needs no place of its own.
constexpr int64_t NumSumsKept(int count) { return count == 1 ? 1 : NumPartialSums(count) - 1; }

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
    MultiplyStreamedTiles(groups, tile);
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
void MultiplyPass(const Product& product, const Cut& cut, const PanelPair& panels, int first_slice, float* tile_sums,
                  const RowsDone& rows_done) {
  const int64_t num_groups = NumGroups(product.args.m);
  const int64_t num_row_pairs = (num_groups + 1) / 2;
  // The next panels' weights are asked for by all pairs of rows together, some lines of each tile by each.
  const int64_t lines = (kLinesOfTile + num_row_pairs - 1) / num_row_pairs;
  const int64_t first_tiles = product.NumTiles(first_slice);
  const int64_t num_parts = first_tiles <= kPartTiles ? 1 : (first_tiles + kPartTiles - 1) / kPartTiles;
  TileArgs tile{};
  tile.group_bytes = product.slices.total * kTileBytes;
  tile.panel_bytes = product.args.panel_bytes;
  const float* sums_before = nullptr;  // of the pair of rows before, taken while the matrix unit is busy with this one
  for (int64_t part = 0; part < num_parts; ++part) {
    const int64_t part_begin = part * kPartTiles;
    const bool last_part = part + 1 == num_parts;
    for (int64_t row_pair = 0; row_pair < num_row_pairs; ++row_pair) {
      const int64_t group = 2 * row_pair;
      const int64_t groups = MinOf(2, num_groups - group);
      // Sums that parts add to stay; those of one part are taken before the pair of rows after the next.
      const int64_t place = num_parts > 1 ? row_pair : row_pair % 2 * cut.slices_a_pass;
      float* const sums = tile_sums + place * kTileSums;
      for (int i = 0; i < cut.slices_a_pass; ++i) {
        const int slice = first_slice + i;
        tile.num_tiles = MinOf(kPartTiles, product.NumTiles(slice) - part_begin);
        tile.x = product.RowsAt(group, slice) + part_begin * kTileBytes;
        tile.weight = product.WeightAt(panels.panel, slice) + part_begin * kTileBytes;
        const int64_t share_begin = row_pair * lines % kLinesOfTile * tile.num_tiles * kCacheLine;
        tile.next = panels.next + (tile.weight - product.WeightAt(panels.panel, first_slice)) + share_begin;
        tile.sums = part > 0 ? sums : nullptr;
        if (lines <= 2) {
          MultiplyBlockTiles<2>(groups, panels.panels, tile);
        } else if (lines <= 4) {
          MultiplyBlockTiles<4>(groups, panels.panels, tile);
        } else {
          MultiplyBlockTiles<8>(groups, panels.panels, tile);
        }
        if (last_part && i == 0 && row_pair > 0) rows_done((group - 2) * kTileRows, sums_before);
        StoreTiles(groups, panels.panels, sums + i * kTileSums);
      }
      sums_before = sums;
    }
  }
  rows_done((num_row_pairs - 1) * 2 * kTileRows, sums_before);
}

// The weights that a pass of the next two panels begins with: of the same chunk, or after a block's last panels of the
// next chunk, or of the next block.
inline const char* NextWeights(const Product& product, const Block& block, const Cut& cut, int64_t panel, int chunk,
                               int first_slice) {
  if (panel + 2 < block.panels) return product.WeightAt(block.panel + panel + 2, first_slice);
  if (chunk + 1 < cut.num_chunks) return product.WeightAt(block.panel, first_slice + cut.slices_a_chunk);
  return product.WeightAt(block.panel + block.panels, first_slice - chunk * cut.slices_a_chunk);
}

// Many rows: panels two by two.
template <typename Finish>
void MultiplyBlock(const Product& product, const Block& block, const Cut& cut, float* scratch, const Finish& finish) {
  float* const tile_sums = scratch + kChunkSumsFloats;
  float* const pass_sums = tile_sums + kTileSumsFloats;
  const int64_t columns = block.columns();
  for (int chunk = 0; chunk < cut.num_chunks; ++chunk) {
    const PartialSums of_chunk(scratch, block.rows * columns, chunk);
    for (int64_t panel = 0; panel < block.panels; panel += 2) {
      const bool last_chunk = chunk + 1 == cut.num_chunks;
      for (int pass = 0; pass < cut.num_passes; ++pass) {
        const PartialSums of_pass(pass_sums, kPassSumsFloats, pass);
        const bool last_pass = pass + 1 == cut.num_passes;
        const int first_slice = chunk * cut.slices_a_chunk + pass * cut.slices_a_pass;
        const PanelPair panels{block.panel + panel, MinOf(2, block.panels - panel),
                               NextWeights(product, block, cut, panel, chunk, first_slice)};
        MultiplyPass(product, cut, panels, first_slice, tile_sums, [&](int64_t first_row, const float* sums) {
          const int64_t rows = MinOf(2 * kTileRows, block.rows - first_row);
          SumTiles(cut.slices_a_pass, sums, rows, panels.panels, [&](int64_t tile_row, int64_t tile_panel, F32x16 sum) {
            const int64_t row = first_row + tile_row;
            const int64_t at = row * kTileSumColumns + tile_panel * kPanelOutputs;
            sum = of_pass.Joined(sum, at);
            if (!last_pass) return Store(of_pass.sums + at, sum);
            const int64_t in_block = row * columns + (panel + tile_panel) * kPanelOutputs;
            sum = of_chunk.Joined(sum, in_block);
            if (!last_chunk) return Store(of_chunk.sums + in_block, sum);
            finish(row, panels.panel + tile_panel, sum);
          });
        });
      }
    }
  }
}

// With one chunk two panels are finished before the next two; with several, their sums wait for the other chunks.
inline int64_t BlockPanels(const Cut& cut) {
  if (cut.num_chunks == 1) return 2;
  return kChunkSumColumns / kPanelOutputs / NumSumsKept(cut.num_chunks);
}

void StreamPanels(const MatmulArgs& args, const SliceTiles& slices, const char* packed, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) {
    ComputeBlock(args, {0, args.m, panel, 1}, [&](const MatmulArgs& half, const auto& finish) {
      StreamPanel({half, slices, packed}, panel, half.scratch, finish);
    });
  }
}

void MultiplyPanels(const MatmulArgs& args, const SliceTiles& slices, const char* packed, int64_t begin, int64_t end) {
  const Cut cut(args, slices);
  Block block{0, args.m, begin, 0};
  for (; block.panel < end; block.panel += block.panels) {
    block.panels = MinOf(BlockPanels(cut), end - block.panel);
    ComputeBlock(args, block, [&](const MatmulArgs& half, const auto& finish) {
      MultiplyBlock({half, slices, packed}, block, cut, half.scratch, finish);
    });
  }
}

void Matmul(const MatmulArgs& args, const void* packed, int64_t panel_begin, int64_t panel_end) {
  ConfigureTiles(args.m);
  const auto multiply = args.m <= kMaxStreamedRows ? StreamPanels : MultiplyPanels;
  multiply(args, SliceTiles(args), static_cast<const char*>(packed), panel_begin, panel_end);
  StreamFence();
  _tile_release();
}

// The first half of a gated product stays before the scratch memory of the second.
size_t ScratchFloats() { return 2 * kChunkSumsFloats + kTileSumsFloats + NumSumsKept(kMaxSlices) * kPassSumsFloats; }

}  // namespace tiles

extern const PackedMatmulKernels kPackedMatmulKernels;
const PackedMatmulKernels kPackedMatmulKernels = {tiles::BlockRows, tiles::PackedBytes, tiles::kTileRows,
                                                  tiles::Pack,      tiles::Matmul,      tiles::ScratchFloats};

}  // namespace heddle::ops::cpu::HEDDLE_ISA
