// y = x * weight^T for int8 weights and rows of x rounded to int8 (W8A8), with outliers of x multiplied as they are
// (LLM.int8).
//
// Sums of products of int8 are exact, so none of the sizes below is part of a result.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace int8 {

#if defined(__AVX512F__)
constexpr int kMaxTileRows = 6;
constexpr int kMaxPanels = 4;
constexpr int kMaxStreamPanels = 8;  // of one or two rows
#elif defined(__AVX2__)
constexpr int kMaxTileRows = 2;
constexpr int kMaxPanels = 2;
constexpr int kMaxStreamPanels = 2;
#else
constexpr int kMaxTileRows = 2;
constexpr int kMaxPanels = 2;
constexpr int kMaxStreamPanels = 2;
#endif
constexpr int64_t kSumsFloats = kMaxPackedRows * kMaxPanels * kPanelOutputs * NumPartialSums(kMaxSlices);
// How far ahead of its use a streamed panel is asked for: about a memory latency at full bandwidth.
constexpr int64_t kPrefetchBytes = 1024;

constexpr int PanelsFor(int64_t rows) { return rows <= 2 ? kMaxStreamPanels : kMaxPanels; }

// A row of x, packed: its int8 values, each slice from its packed bound on, and its notes.
struct PackedRows {
  explicit PackedRows(const MatmulArgs& args) {
    const int64_t k = args.packed_bounds[args.num_slices];
    notes = (k + 63) / 64 * 64;
    stride = notes + NotesBytes(args, k);
  }
  int64_t notes;  // in bytes from the beginning of a row
  int64_t stride;
};

int64_t BlockRows(const MatmulArgs& args) {
  const int64_t rows = kPackedRowsBytes / PackedRows(args).stride;
  return rows < 8 * kMaxTileRows ? 8 * kMaxTileRows : MinOf(rows, kMaxPackedRows);
}

size_t PackedBytes(const MatmulArgs& args) { return static_cast<size_t>(args.m * PackedRows(args).stride); }

void Pack(const MatmulArgs& args, int64_t begin, int64_t end, void* packed) {
  const PackedRows rows(args);
  for (int64_t row = begin; row < end; ++row) {
    char* const out = static_cast<char*>(packed) + row * rows.stride;
    // Zeros where slices are filled up to whole quads: times weights of zero, but for the offset.
    std::memset(out, 0, static_cast<size_t>(rows.stride));
    for (int s = 0; s < args.num_slices; ++s) {
      char* const values = out + args.packed_bounds[s];
      RoundSlice<kXOffset>(args.x + row * args.x_stride + args.slice_bounds[s],
                           args.slice_bounds[s + 1] - args.slice_bounds[s], Threshold(args), s, args.packed_bounds[s],
                           out + rows.notes, [&](int64_t k) { return values + k; });
    }
  }
}

// Some rows times some panels over one slice.
struct TileArgs {
  const PackedRows* rows;
  const char* packed;  // the first row
  const float* x;      // the first row, where the slice begins, as it was
  int64_t x_stride;
  int slice;
  int64_t packed_begin;  // of the slice
  const char* weight;    // the first panel, where the slice begins
  int64_t panel_bytes;
  int64_t num_quads;
  const float* scales;        // of the first panel
  const int32_t* slice_sums;  // of the first panel and the slice
  int64_t slice_sums_stride;  // from a panel to the next
  float* sums;                // [rows, ...], rows sums_stride apart
  int64_t sums_stride;

  const char* Row(int64_t row) const { return packed + row * rows->stride; }
};

template <int kRows, int kPanels, bool kSparse, bool kStream>
void MultiplyTile(const TileArgs& args) {
  I32x16 sums[kRows][kPanels];
  for (int p = 0; p < kPanels; ++p) {
    const I32x16 initial = InitialSums(args.slice_sums + p * args.slice_sums_stride);
    for (int r = 0; r < kRows; ++r) sums[r][p] = initial;
  }
  const char* x = args.packed + args.packed_begin;
  const int64_t x_stride = args.rows->stride;
  for (int64_t quad = 0; quad < args.num_quads; ++quad) {
    I8x64 weights[kPanels];
    for (int p = 0; p < kPanels; ++p) {
      const char* panel = args.weight + p * args.panel_bytes;
      if constexpr (kStream) {
        const int64_t bytes = kSparse ? sparse::BlockBytes(1) / sparse::kBlockQuads : kQuadBytes;
        Prefetch(panel + quad * bytes + kPrefetchBytes);
      }
      weights[p] = LoadWeights<kSparse>(panel, quad);
    }
    for (int r = 0; r < kRows; ++r) {
      int32_t four;
      std::memcpy(&four, x + r * x_stride + quad * kQuadK, sizeof(four));
      for (int p = 0; p < kPanels; ++p) sums[r][p] = DotQuad(sums[r][p], four, weights[p]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    const char* const notes = args.Row(r) + args.rows->notes;
    const RoundedSlice slice = SliceOf(notes, args.slice);
    for (int p = 0; p < kPanels; ++p) {
      const F32x16 result = SliceResult(slice, sums[r][p], args.scales + p * kPanelOutputs, [&] {
        return OutlierSums<kSparse>(notes, args.packed_begin, args.packed_begin + args.num_quads * kQuadK,
                                    args.x + r * args.x_stride, args.weight + p * args.panel_bytes);
      });
      Store(args.sums + r * args.sums_stride + p * kPanelOutputs, result);
    }
  }
}

using TileFunction = void (*)(const TileArgs& args);

// MultiplyTile for `rows` and `panels`, a power of two up to PanelsFor(rows).
template <bool kSparse, bool kStream, int kRows = kMaxTileRows, int kPanels = PanelsFor(kMaxTileRows)>
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
inline void MultiplySlice(const MatmulArgs& args, const PackedRows& rows, const void* packed, const Block& block,
                          int slice, float* sums) {
  const int64_t begin = args.packed_bounds[slice];
  const int64_t end = args.packed_bounds[slice + 1];
  TileArgs tile;
  tile.rows = &rows;
  tile.x_stride = args.x_stride;
  tile.slice = slice;
  tile.packed_begin = begin;
  tile.weight = static_cast<const char*>(args.weight) + block.panel * args.panel_bytes + BytesTo(args, begin);
  tile.panel_bytes = args.panel_bytes;
  tile.num_quads = (end - begin) / kQuadK;
  tile.scales = args.scales + block.panel * kPanelOutputs;
  tile.slice_sums_stride = int64_t{args.num_slices} * kPanelOutputs;
  tile.slice_sums = args.slice_sums + block.panel * tile.slice_sums_stride + slice * kPanelOutputs;
  tile.sums_stride = block.columns();
  const int64_t slice_bytes = BytesTo(args, end) - BytesTo(args, begin);
  const int64_t num_tiles = (block.rows + kMaxTileRows - 1) / kMaxTileRows;
  const bool streams = num_tiles <= 2;
  for (int64_t i = 0; i < num_tiles; ++i) {
    const int64_t row = block.rows * i / num_tiles;  // tiles differ by one row at most
    const int64_t tile_rows = block.rows * (i + 1) / num_tiles - row;
    tile.packed = static_cast<const char*>(packed) + row * rows.stride;
    tile.x = args.x + row * args.x_stride + args.slice_bounds[slice];
    tile.sums = sums + row * tile.sums_stride;
    for (int64_t panel = 0; !streams && panel < block.panels; ++panel) {
      // What the next block of panels will read comes from memory meanwhile.
      PrefetchShare(tile.weight + (block.panels + panel) * args.panel_bytes, slice_bytes, i, num_tiles);
    }
    FindTile(args.sparse, streams && i == 0, tile_rows, block.panels)(tile);
  }
}

void Matmul(const MatmulArgs& args, const void* packed, int64_t panel_begin, int64_t panel_end) {
  const PackedRows rows(args);
  Block block{0, args.m, panel_begin, 0};
  for (; block.panel < panel_end; block.panel += block.panels) {
    block.panels = PanelsFor(args.m);
    while (block.panels > panel_end - block.panel) block.panels /= 2;
    ComputeBlock(args, block, [&](const MatmulArgs& half, const auto& finish) {
      SumSlices(args.num_slices, block.rows * block.columns(), half.scratch,
                [&](int slice, float* sums) { MultiplySlice(half, rows, packed, block, slice, sums); });
      FinishBlock(block, half.scratch, finish);
    });
  }
  StreamFence();
}

// The first half of a gated product stays before the scratch memory of the second.
size_t ScratchFloats() { return 2 * kSumsFloats; }

}  // namespace int8

constexpr PackedMatmulKernels kInt8MatmulKernels = {int8::BlockRows, int8::PackedBytes, /*pack_rows=*/1,
                                                    int8::Pack,      int8::Matmul,      int8::ScratchFloats};

}  // namespace heddle::ops::cpu::HEDDLE_ISA
