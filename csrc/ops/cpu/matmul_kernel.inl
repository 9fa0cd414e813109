// y = x * weight^T over panels of 16 outputs.
//
// Every element of y is one accumulator that walks its slice of K upwards with fused multiply-adds; the tiles, blocks
// and chunks below choose only what is computed together, so none of their sizes is part of a result.
//
// A few rows of x (decoding) stream the panels once, several at a time, straight from memory. More rows (prefill) are
// cut into blocks; a chunk of K of a block's rows is copied together and stays in L2, and each panel's part of that
// chunk is widened into L1, from where all rows of the block use it.

namespace heddle::ops::cpu::HEDDLE_ISA {

// A tile is the rows times panels whose accumulators stay in registers.
#if defined(__AVX512F__)
constexpr int kMaxStreamRows = 8;
constexpr int kMaxStreamPanels = 8;
constexpr int kStreamAccumulators = 16;  // of 32 registers, one each
constexpr int kMaxBlockTileRows = 12;
#elif defined(__AVX2__)
constexpr int kMaxStreamRows = 5;
constexpr int kMaxStreamPanels = 4;
constexpr int kStreamAccumulators = 5;  // of 16 registers, two each; widening needs the other six
constexpr int kMaxBlockTileRows = 6;
#else
constexpr int kMaxStreamRows = 2;
constexpr int kMaxStreamPanels = 2;
constexpr int kStreamAccumulators = 2;
constexpr int kMaxBlockTileRows = 2;
#endif

constexpr int kBlockRows = 96;
constexpr int kChunk = 256;
constexpr int kXStride = kChunk + 16;  // not a power of two, so that the rows of a chunk do not share cache sets
constexpr int kMaxGroupPanels = 16;    // panels whose sums stay in L2 beside the chunk of x
constexpr int kSumColumns = 512;       // of all partial sums together

// Floats of a thread's scratch memory.
constexpr int kSumsFloats = kBlockRows * kSumColumns;
constexpr int kXFloats = kBlockRows * kXStride;
constexpr int kWeightFloats = kChunk * kPanelOutputs;
static_assert(kChunk % sparse::kBlockK == 0);

// How far ahead of its use a streamed panel is asked for: about a memory latency at full bandwidth.
constexpr int64_t kPrefetchBytes = 1024;

// The largest power of two of panels that `rows` leave accumulators for.
constexpr int StreamPanels(int rows) {
  int panels = 1;
  while (2 * panels * rows <= kStreamAccumulators && 2 * panels <= kMaxStreamPanels) panels *= 2;
  return panels;
}

// ---- a few rows: whole slices, streamed ----

struct StreamArgs {
  const float* x;
  int64_t x_stride;
  const char* weight;
  int64_t panel_bytes;
  int64_t k;
  float* sums;  // [rows, panels * 16]
};

// sums = x * weight^T over k, starting from zero.
template <typename Weights, int kRows, int kPanels>
void StreamTile(const StreamArgs& args) {
  F32x16 sums[kRows][kPanels];
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) sums[r][p] = Zero();
  }
  // Of a sparse group's 72 bytes one: the line in nine that this leaves out costs less than asking for all others
  // twice.
  constexpr int64_t kLines = Weights::kBytes < kCacheLine ? 1 : Weights::kBytes / kCacheLine;
  const int64_t num_groups = args.k / Weights::kSize;
  for (int64_t i = 0; i < num_groups; ++i) {
    typename Weights::Row rows[kRows];
    for (int r = 0; r < kRows; ++r) rows[r] = Weights::LoadRow(args.x + r * args.x_stride + i * Weights::kSize);
    for (int p = 0; p < kPanels; ++p) {
      const char* panel = args.weight + p * args.panel_bytes;
      const char* ahead = panel + i * Weights::kBytes + kPrefetchBytes;
      for (int64_t line = 0; line < kLines; ++line) Prefetch(ahead + line * kCacheLine);
      const typename Weights::Group group = Weights::Load(panel, i);
      for (int r = 0; r < kRows; ++r) sums[r][p] = Weights::MultiplyAdd(rows[r], group, sums[r][p]);
    }
  }
  if (const int64_t rest = args.k % Weights::kSize; rest != 0) {
    // The rest of the last group is padding; what stands beside it in x belongs to the next slice or to nobody.
    for (int p = 0; p < kPanels; ++p) {
      const typename Weights::Group group = Weights::Load(args.weight + p * args.panel_bytes, num_groups);
      for (int r = 0; r < kRows; ++r) {
        const auto row = Weights::LoadRow(args.x + r * args.x_stride + num_groups * Weights::kSize);
        sums[r][p] = Weights::MultiplyAdd(row, group, sums[r][p], rest);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) Store(args.sums + (r * kPanels + p) * kPanelOutputs, sums[r][p]);
  }
}

using StreamFunction = void (*)(const StreamArgs& args);

// StreamTile for `rows` and `panels`, a power of two up to StreamPanels(rows).
template <typename Weights, int kRows = kMaxStreamRows, int kPanels = StreamPanels(kMaxStreamRows)>
StreamFunction FindStreamTile(int64_t rows, int64_t panels) {
  if (rows == kRows && panels == kPanels) return StreamTile<Weights, kRows, kPanels>;
  if constexpr (kPanels > 1) {
    return FindStreamTile<Weights, kRows, kPanels / 2>(rows, panels);
  } else if constexpr (kRows > 1) {
    return FindStreamTile<Weights, kRows - 1, StreamPanels(kRows - 1)>(rows, panels);
  } else {
    return nullptr;
  }
}

// ---- many rows: a chunk of K at a time ----

// sums += x * weight^T over k <= kChunk, the sums kept in memory between chunks: rounded nowhere, since accumulators
// are float32 in registers too. Rows of x are kXStride apart, rows of sums sums_stride; weight is [k, 16].
template <int kRows>
void BlockTile(const float* x, const float* weight, int64_t k, float* sums, int64_t sums_stride) {
  F32x16 tile[kRows];
  for (int r = 0; r < kRows; ++r) tile[r] = Load(sums + r * sums_stride);
  for (int64_t i = 0; i < k; ++i) {
    const F32x16 w = Load(weight + i * kPanelOutputs);
    for (int r = 0; r < kRows; ++r) tile[r] = Fma(Set1(x[r * kXStride + i]), w, tile[r]);
  }
  for (int r = 0; r < kRows; ++r) Store(sums + r * sums_stride, tile[r]);
}

using BlockFunction = void (*)(const float* x, const float* weight, int64_t k, float* sums, int64_t sums_stride);

template <int kRows = kMaxBlockTileRows>
BlockFunction FindBlockTile(int64_t rows) {
  if (rows == kRows) return BlockTile<kRows>;
  if constexpr (kRows > 1) return FindBlockTile<kRows - 1>(rows);
  return nullptr;
}

// k neighbours in K of a panel as float32 [k, 16]; a few more, which are padding, where k is not in whole groups.
template <typename Weights>
void WidenChunk(const char* weight, int64_t k, float* widened) {
  for (int64_t i = 0; i * Weights::kSize < k; ++i) {
    const typename Weights::Group group = Weights::Load(weight, i);
    for (int j = 0; j < Weights::kSize; ++j) {
      Store(widened + (i * Weights::kSize + j) * kPanelOutputs, Weights::Column(group, j));
    }
  }
}

inline const char* WeightAt(const MatmulArgs& args, int64_t panel, int64_t packed) {
  return static_cast<const char*>(args.weight) + panel * args.panel_bytes + BytesTo(args, packed);
}

// Of int8 weights: sums [rows, columns] *= the scales of the outputs / kColumnScale.
inline void ScaleSums(const MatmulArgs& args, const Block& block, float* sums) {
  if (args.scales == nullptr) return;
  const float* scales = args.scales + block.panel * kPanelOutputs;
  for (int64_t row = 0; row < block.rows; ++row) {
    for (int64_t i = 0; i < block.columns(); i += kPanelOutputs, sums += kPanelOutputs) {
      Store(sums, Mul(Mul(Load(sums), Set1(1 / kColumnScale)), Load(scales + i)));
    }
  }
}

// sums [rows, columns] = the products over one slice. REQUIRES: at most kMaxStreamRows rows, and so many panels as a
// tile of so many rows may have.
inline void StreamSlice(const MatmulArgs& args, const Block& block, int slice, float* sums) {
  StreamArgs tile;
  tile.x = args.x + block.row * args.x_stride + args.slice_bounds[slice];
  tile.x_stride = args.x_stride;
  tile.weight = WeightAt(args, block.panel, args.packed_bounds[slice]);
  tile.panel_bytes = args.panel_bytes;
  tile.k = args.slice_bounds[slice + 1] - args.slice_bounds[slice];
  tile.sums = sums;
  const StreamFunction multiply = WithGroups(args.storage, args.sparse, [&](auto groups) {
    return FindStreamTile<decltype(groups)>(block.rows, block.panels);
  });
  multiply(tile);
  ScaleSums(args, block, sums);
}

// One panel of a chunk: widens it and multiplies all rows of the block with it.
inline void MultiplyPanel(const MatmulArgs& args, const Block& block, const float* x, const char* weight, int64_t k,
                          float* widened, float* sums) {
  const float* w = widened;
  if (args.storage == Storage::kFloat32) {
    w = reinterpret_cast<const float*>(weight);
  } else {
    WithGroups(args.storage, args.sparse, [&](auto groups) { WidenChunk<decltype(groups)>(weight, k, widened); });
  }
  const int64_t num_tiles = (block.rows + kMaxBlockTileRows - 1) / kMaxBlockTileRows;
  const int64_t chunk_bytes = BytesTo(args, k);
  for (int64_t i = 0; i < num_tiles; ++i) {
    // The next panel's chunk comes from memory meanwhile.
    PrefetchShare(weight + args.panel_bytes, chunk_bytes, i, num_tiles);
    const int64_t row = block.rows * i / num_tiles;  // tiles differ by one row at most
    const int64_t rows = block.rows * (i + 1) / num_tiles - row;
    FindBlockTile(rows)(x + row * kXStride, w, k, sums + row * block.columns(), block.columns());
  }
}

// sums [rows, columns] = the products over one slice.
inline void MultiplySlice(const MatmulArgs& args, const Block& block, int slice, float* x_chunk, float* widened,
                          float* sums) {
  std::memset(sums, 0, static_cast<size_t>(block.rows * block.columns()) * sizeof(float));
  const int64_t begin = args.slice_bounds[slice];
  const int64_t end = args.slice_bounds[slice + 1];
  for (int64_t at = begin; at < end; at += kChunk) {
    const int64_t k = MinOf(kChunk, end - at);
    for (int64_t row = 0; row < block.rows; ++row) {
      std::memcpy(x_chunk + row * kXStride, args.x + (block.row + row) * args.x_stride + at,
                  static_cast<size_t>(k) * sizeof(float));
    }
    for (int64_t panel = 0; panel < block.panels; ++panel) {
      const char* weight = WeightAt(args, block.panel + panel, args.packed_bounds[slice] + at - begin);
      MultiplyPanel(args, block, x_chunk, weight, k, widened, sums + panel * kPanelOutputs);
    }
  }
  ScaleSums(args, block, sums);
}

// All slices of a block; the sums lie at the beginning of the scratch memory.
inline void MultiplyBlock(const MatmulArgs& args, const Block& block) {
  float* const x_chunk = args.scratch + kSumsFloats;
  float* const widened = x_chunk + kXFloats;
  SumSlices(args.num_slices, block.rows * block.columns(), args.scratch, [&](int slice, float* sums) {
    if (block.rows <= kMaxStreamRows) {
      StreamSlice(args, block, slice, sums);
    } else {
      MultiplySlice(args, block, slice, x_chunk, widened, sums);
    }
  });
}

// The first half of a gated product stays before the scratch memory of the second.
inline size_t MatmulScratchFloats() { return 2 * kSumsFloats + kXFloats + kWeightFloats; }

// The panels that a block of `rows` takes at once, when `remaining` are left.
inline int64_t GroupPanels(const MatmulArgs& args, int64_t rows, int64_t remaining) {
  if (rows <= kMaxStreamRows) {
    int64_t panels = StreamPanels(static_cast<int>(rows));
    while (panels > remaining) panels /= 2;
    return panels;
  }
  return MinOf(remaining, MinOf(kMaxGroupPanels, kSumColumns / kPanelOutputs / NumPartialSums(args.num_slices)));
}

void Matmul(const MatmulArgs& args, int64_t panel_begin, int64_t panel_end) {
  const int64_t num_blocks = (args.m + kBlockRows - 1) / kBlockRows;
  for (int64_t i = 0; i < num_blocks; ++i) {
    Block block;
    block.row = args.m * i / num_blocks;
    block.rows = args.m * (i + 1) / num_blocks - block.row;
    for (block.panel = panel_begin; block.panel < panel_end; block.panel += block.panels) {
      block.panels = GroupPanels(args, block.rows, panel_end - block.panel);
      ComputeBlock(args, block, [&](const MatmulArgs& half, const auto& finish) {
        MultiplyBlock(half, block);
        FinishBlock(block, half.scratch, finish);
      });
    }
  }
  StreamFence();
}

}  // namespace heddle::ops::cpu::HEDDLE_ISA
