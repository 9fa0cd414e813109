// y = x * weight^T in AMX tiles: rows rounded to bfloat16 times bfloat16 or int8 weights, rows rounded to int8 times
// int8 ones. One kernel serves every batch: a few rows stream the weights at the speed of memory, many are blocked for
// the caches, and the bits are the same. So they are for sparse weights, which are expanded to dense tiles.

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
constexpr int64_t kExpandedFloats = 2 * kPartTiles * kTileBytes / static_cast<int64_t>(sizeof(float));

// What all of one call share.
template <typename Rows>
struct Product {
  Product(const MatmulArgs& of, const Rows& packed_rows, const char* rows_at)
      : args(of), rows(packed_rows), packed(rows_at), weights(of, Rows::kInt8, Rows::kTileK) {}

  const char* RowsAt(int64_t group, int slice) const {
    return packed + group * rows.group_bytes + rows.slices.before[slice] * kTileBytes;
  }
  const char* WeightAt(int64_t panel, int slice) const {
    return static_cast<const char*>(args.weight) + panel * args.panel_bytes + BytesTo(args, args.packed_bounds[slice]);
  }
  int64_t NumTiles(int slice) const { return rows.slices.before[slice + 1] - rows.slices.before[slice]; }
  // Calls take(row, panel, sum) for the sums of some slices.
  template <typename Take>
  void SumSlices(const SlicesSums& of, const Take& take) const {
    const auto result = [&](int64_t row, int64_t panel, int slice, const float* sums) {
      return rows.SliceResult(args, packed, row, panel, slice, sums);
    };
    SumTiles(of, result, take);
  }

  const MatmulArgs& args;
  const Rows& rows;
  const char* packed;
  WeightTiles weights;
};

// A few rows times one panel, each weight used once.
template <typename Rows, typename Finish>
void StreamPanel(const Product<Rows>& product, int64_t panel, float* scratch, const Finish& finish) {
  const MatmulArgs& args = product.args;
  const WeightTiles& weights = product.weights;
  const int64_t groups = NumGroups(args.m);
  float* const tile_sums = scratch;
  char* const expanded = reinterpret_cast<char*>(scratch + kTileSumsFloats);
  TileArgs tile{};
  tile.group_bytes = product.rows.group_bytes;
  for (int slice = 0; slice < args.num_slices; ++slice) {
    tile.x = product.RowsAt(0, slice);
    tile.weight = product.WeightAt(panel, slice);
    tile.num_tiles = product.NumTiles(slice);
    BeginTiles(groups, 1, nullptr);
    if (weights.expand == nullptr) {
      tile.next = tile.weight + kStreamAhead;
      MultiplyStreamedTiles<Rows::kInt8>(groups, tile);
    } else {
      const auto expand = [&](int64_t i, char* to) {
        const char* const weight = tile.weight + i * weights.bytes;
        PrefetchShare(weight + kStreamAhead, weights.bytes, 0, 1);
        weights.expand(weight, to);
      };
      if (groups > 1) {
        MultiplyMadeTiles<Rows::kInt8, 2>(tile, expanded, expand);
      } else {
        MultiplyMadeTiles<Rows::kInt8, 1>(tile, expanded, expand);
      }
    }
    StoreTiles(groups, 1, tile_sums + slice * kTileSums);
  }
  product.SumSlices({tile_sums, 0, args.num_slices, 0, args.m, panel, 1}, finish);
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

// The weights that all rows pass by: of each slice of a pass the tiles from `begin` on, kPartTiles at most together.
// They stay where they are or are expanded.
template <typename Rows>
struct PartOfWeights {
  PartOfWeights(const Product<Rows>& of, const Cut& cut, const PanelPair& panels, int first, int64_t begin,
                char* expanded)
      : product(of), panel(panels.panel), first_slice(first), first_tile(begin), longest(of.rows.slices.longest) {
    if (of.weights.expand == nullptr) return;
    tiles = expanded;
    panel_bytes = kPartTiles * kTileBytes;
    for (int64_t p = 0; p < panels.panels; ++p) {
      for (int i = 0; i < cut.slices_a_pass; ++i) {
        const char* const weight = of.WeightAt(panel + p, first) + Offset(i);
        char* const to = expanded + p * panel_bytes + i * longest * kTileBytes;
        for (int64_t t = 0; t < NumTiles(i); ++t) of.weights.expand(weight + t * of.weights.bytes, to + t * kTileBytes);
      }
    }
  }
  int64_t NumTiles(int i) const { return MinOf(kPartTiles, product.NumTiles(first_slice + i) - first_tile); }
  // In bytes of a panel, from where the first slice begins.
  int64_t Offset(int i) const {
    return product.WeightAt(panel, first_slice + i) - product.WeightAt(panel, first_slice) +
           first_tile * product.weights.bytes;
  }
  const char* Tiles(int i) const {
    if (tiles != nullptr) return tiles + i * longest * kTileBytes;
    return product.WeightAt(panel, first_slice) + Offset(i);
  }

  const Product<Rows>& product;
  int64_t panel;
  int first_slice;
  int64_t first_tile;
  int64_t longest;
  const char* tiles = nullptr;  // those that were expanded
  int64_t panel_bytes = product.args.panel_bytes;
};

// Calls rows_done(first_row, tile_sums) for every pair of groups of rows, when their products over the slices of a pass
// lie in tile_sums, slice by slice.
template <typename Rows, typename RowsDone>
void MultiplyPass(const Product<Rows>& product, const Cut& cut, const PanelPair& panels, int first_slice,
                  float* tile_sums, char* expanded, const RowsDone& rows_done) {
  const int64_t num_groups = NumGroups(product.args.m);
  const int64_t num_row_pairs = (num_groups + 1) / 2;
  // The next panels' weights are asked for by all pairs of rows together, some lines of each tile by each.
  const int64_t lines_of_tile = (product.weights.bytes + kCacheLine - 1) / kCacheLine;
  int64_t lines = 2;
  while (lines < 8 && lines * num_row_pairs < lines_of_tile) lines *= 2;
  const int64_t first_tiles = product.NumTiles(first_slice);
  const int64_t num_parts = first_tiles <= kPartTiles ? 1 : (first_tiles + kPartTiles - 1) / kPartTiles;
  TileArgs tile{};
  tile.group_bytes = product.rows.group_bytes;
  tile.next_panel_bytes = product.args.panel_bytes;
  const float* sums_before = nullptr;  // of the pair of rows before, taken while the matrix unit is busy with this one
  for (int64_t part = 0; part < num_parts; ++part) {
    const PartOfWeights weights(product, cut, panels, first_slice, part * kPartTiles, expanded);
    const bool last_part = part + 1 == num_parts;
    for (int64_t row_pair = 0; row_pair < num_row_pairs; ++row_pair) {
      const int64_t group = 2 * row_pair;
      const int64_t groups = MinOf(2, num_groups - group);
      // Sums that parts add to stay; those of one part are taken before the pair of rows after the next.
      const int64_t place = num_parts > 1 ? row_pair : row_pair % 2 * cut.slices_a_pass;
      float* const sums = tile_sums + place * kTileSums;
      for (int i = 0; i < cut.slices_a_pass; ++i) {
        const int slice = first_slice + i;
        tile.num_tiles = weights.NumTiles(i);
        tile.x = product.RowsAt(group, slice) + part * kPartTiles * kTileBytes;
        tile.weight = weights.Tiles(i);
        tile.panel_bytes = weights.panel_bytes;
        tile.next = panels.next + weights.Offset(i) + row_pair * lines * tile.num_tiles * kCacheLine;
        BeginTiles(groups, panels.panels, part > 0 ? sums : nullptr);
        MultiplyBlockTiles<Rows::kInt8>(row_pair * lines < lines_of_tile ? lines : 0, groups, panels.panels, tile);
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
template <typename Rows>
const char* NextWeights(const Product<Rows>& product, const Block& block, const Cut& cut, int64_t panel, int chunk,
                        int first_slice) {
  if (panel + 2 < block.panels) return product.WeightAt(block.panel + panel + 2, first_slice);
  if (chunk + 1 < cut.num_chunks) return product.WeightAt(block.panel, first_slice + cut.slices_a_chunk);
  return product.WeightAt(block.panel + block.panels, first_slice - chunk * cut.slices_a_chunk);
}

// Many rows: panels two by two.
template <typename Rows, typename Finish>
void MultiplyBlock(const Product<Rows>& product, const Block& block, const Cut& cut, float* scratch,
                   const Finish& finish) {
  float* const tile_sums = scratch + kChunkSumsFloats;
  char* const expanded = reinterpret_cast<char*>(tile_sums + kTileSumsFloats);
  float* const pass_sums = tile_sums + kTileSumsFloats + kExpandedFloats;
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
        const auto rows_done = [&](int64_t first_row, const float* sums) {
          const int64_t rows = MinOf(2 * kTileRows, block.rows - first_row);
          const SlicesSums of{sums, first_slice, cut.slices_a_pass, first_row, rows, panels.panel, panels.panels};
          product.SumSlices(of, [&](int64_t row, int64_t of_panel, F32x16 sum) {
            const int64_t at = row * kTileSumColumns + (of_panel - panels.panel) * kPanelOutputs;
            sum = of_pass.Joined(sum, at);
            if (!last_pass) return Store(of_pass.sums + at, sum);
            const int64_t in_block = row * columns + (of_panel - block.panel) * kPanelOutputs;
            sum = of_chunk.Joined(sum, in_block);
            if (!last_chunk) return Store(of_chunk.sums + in_block, sum);
            finish(row, of_panel, sum);
          });
        };
        MultiplyPass(product, cut, panels, first_slice, tile_sums, expanded, rows_done);
      }
    }
  }
}

// With one chunk two panels are finished before the next two; with several, their sums wait for the other chunks.
inline int64_t BlockPanels(const Cut& cut) {
  if (cut.num_chunks == 1) return 2;
  return kChunkSumColumns / kPanelOutputs / NumSumsKept(cut.num_chunks);
}

template <typename Rows>
void StreamPanels(const MatmulArgs& args, const Rows& rows, const char* packed, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) {
    ComputeBlock(args, {0, args.m, panel, 1}, [&](const MatmulArgs& half, const auto& finish) {
      StreamPanel(Product<Rows>(half, rows, packed), panel, half.scratch, finish);
    });
  }
}

template <typename Rows>
void MultiplyPanels(const MatmulArgs& args, const Rows& rows, const char* packed, int64_t begin, int64_t end) {
  const Cut cut(args, rows.slices);
  Block block{0, args.m, begin, 0};
  for (; block.panel < end; block.panel += block.panels) {
    block.panels = MinOf(BlockPanels(cut), end - block.panel);
    ComputeBlock(args, block, [&](const MatmulArgs& half, const auto& finish) {
      MultiplyBlock(Product<Rows>(half, rows, packed), block, cut, half.scratch, finish);
    });
  }
}

template <typename Rows>
void Matmul(const MatmulArgs& args, const void* packed, int64_t panel_begin, int64_t panel_end) {
  ConfigureTiles(args.m);
  const auto multiply = args.m <= kMaxStreamedRows ? StreamPanels<Rows> : MultiplyPanels<Rows>;
  multiply(args, Rows(args), static_cast<const char*>(packed), panel_begin, panel_end);
  StreamFence();
  _tile_release();
}

// The first half of a gated product stays before the scratch memory of the second.
size_t ScratchFloats() {
  return 2 * kChunkSumsFloats + kTileSumsFloats + kExpandedFloats + NumSumsKept(kMaxSlices) * kPassSumsFloats;
}

template <typename Rows>
constexpr PackedMatmulKernels kKernels = {BlockRows<Rows>, PackedBytes<Rows>, kTileRows,   Pack<Rows>,
                                          Matmul<Rows>,    ScratchFloats,     !Rows::kInt8};

}  // namespace tiles

extern const PackedMatmulKernels kPackedMatmulKernels;
const PackedMatmulKernels kPackedMatmulKernels = tiles::kKernels<tiles::BFloat16Rows>;
extern const PackedMatmulKernels kInt8MatmulKernels;
const PackedMatmulKernels kInt8MatmulKernels = tiles::kKernels<tiles::Int8Rows>;

}  // namespace heddle::ops::cpu::HEDDLE_ISA
