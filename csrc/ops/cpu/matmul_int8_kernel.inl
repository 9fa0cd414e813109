// y = x * weight^T for int8 weights and rows of x rounded to int8 (W8A8), with outliers of x multiplied as they are
// (LLM.int8).
//
// Each reduction slice of a row has a step of its own, its largest magnitude / 127: a finer rule than one step a row,
// and one that does not depend on who computes which slice. Sums of products of int8 are exact, so only the last few
// operations round, and none of the sizes below is part of a result.

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
constexpr int64_t kQuadK = 4;
constexpr int64_t kQuadBytes = kQuadK * kPanelOutputs;
constexpr int64_t kSumsFloats = kMaxPackedRows * kMaxPanels * kPanelOutputs * NumPartialSums(kMaxSlices);
// How far ahead of its use a streamed panel is asked for: about a memory latency at full bandwidth.
constexpr int64_t kPrefetchBytes = 1024;

constexpr int PanelsFor(int64_t rows) { return rows <= 2 ? kMaxStreamPanels : kMaxPanels; }

struct PackedSlice {
  float step;
  int32_t num_outliers;
};

// A row of x, packed: its int8 values, each slice from its packed bound on; what there is to know of each slice; and,
// where there may be outliers, a bit for each value that says whether it is one and therefore zero here.
struct PackedRows {
  explicit PackedRows(const MatmulArgs& args) {
    const int64_t k = args.packed_bounds[args.num_slices];
    slices = (k + 63) / 64 * 64;
    outliers = slices + kMaxSlices * static_cast<int64_t>(sizeof(PackedSlice));
    stride = outliers + (MayHaveOutliers(args) ? (k + 511) / 512 * 64 : 0);
  }
  static bool MayHaveOutliers(const MatmulArgs& args) { return args.outlier_threshold < __builtin_inff(); }
  // What no magnitude reaches where there are none: not even infinity.
  static float Threshold(const MatmulArgs& args) {
    return MayHaveOutliers(args) ? args.outlier_threshold : __builtin_nanf("");
  }
  int64_t slices;  // in bytes from the beginning of a row, as are the others
  int64_t outliers;
  int64_t stride;
};

int64_t BlockRows(const MatmulArgs& args) {
  const int64_t rows = kPackedRowsBytes / PackedRows(args).stride;
  return rows < 8 * kMaxTileRows ? 8 * kMaxTileRows : MinOf(rows, kMaxPackedRows);
}

size_t PackedBytes(const MatmulArgs& args) { return static_cast<size_t>(args.m * PackedRows(args).stride); }

// The step of `size` values, outliers aside: not a number where they are not all finite, zero where there is nothing
// to round.
inline float StepOf(const float* x, int64_t size, float outlier_threshold) {
  I32x16 max = ZeroInt32();
  for (int64_t k = 0; k < size; k += 16) {
    const F32x16 values = LoadPartial(x + k, static_cast<int>(MinOf(16, size - k)));
    max = MaxMagnitudeBits(max, ClearLanes(values, LanesFrom(values, outlier_threshold)));
  }
  const int32_t bits = MaxLane(max);
  float magnitude;
  std::memcpy(&magnitude, &bits, sizeof(magnitude));
  constexpr float kLeast = 1e-30f;  // below, 1 / step overflows
  if (magnitude < kLeast) return 0;
  return magnitude <= __FLT_MAX__ ? magnitude / 127.0f : __builtin_nanf("");
}

// Rounds `size` values to values[packed ...] and marks outliers, of which it returns the number.
inline int32_t PackSlice(const float* x, int64_t size, float step, float outlier_threshold, int64_t packed,
                         char* values, uint8_t* outliers) {
  int32_t num_outliers = 0;
  const F32x16 inverse = Set1(step > 0 ? 1.0f / step : 0.0f);
  for (int64_t k = 0; k < size; k += 16) {
    const int64_t count = MinOf(16, size - k);
    F32x16 lanes = LoadPartial(x + k, static_cast<int>(count));
    const uint32_t large = LanesFrom(lanes, outlier_threshold);
    for (uint32_t left = large; left != 0; left &= left - 1, ++num_outliers) {
      const int64_t at = packed + k + __builtin_ctz(left);
      outliers[at / 8] = static_cast<uint8_t>(outliers[at / 8] | 1u << at % 8);
    }
    lanes = Mul(ClearLanes(lanes, large), inverse);
    alignas(16) char rounded[16];
    StoreInt8(rounded, step > 0 ? lanes : Zero());
    for (char& value : rounded) value = static_cast<char>(value + kXOffset);
    std::memcpy(values + packed + k, rounded, static_cast<size_t>(count));
  }
  return num_outliers;
}

void Pack(const MatmulArgs& args, int64_t begin, int64_t end, void* packed) {
  const PackedRows rows(args);
  const float threshold = PackedRows::Threshold(args);
  for (int64_t row = begin; row < end; ++row) {
    char* const out = static_cast<char*>(packed) + row * rows.stride;
    // Zeros where slices are filled up to whole quads: times weights of zero, but for the offset.
    std::memset(out, 0, static_cast<size_t>(rows.stride));
    for (int s = 0; s < args.num_slices; ++s) {
      const float* x = args.x + row * args.x_stride + args.slice_bounds[s];
      const int64_t size = args.slice_bounds[s + 1] - args.slice_bounds[s];
      PackedSlice slice;
      slice.step = StepOf(x, size, threshold);
      slice.num_outliers = PackSlice(x, size, slice.step, threshold, args.packed_bounds[s], out,
                                     reinterpret_cast<uint8_t*>(out + rows.outliers));
      std::memcpy(out + rows.slices + s * static_cast<int64_t>(sizeof(slice)), &slice, sizeof(slice));
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

template <bool kSparse>
inline I8x64 LoadWeights(const char* panel, int64_t quad) {
  if constexpr (kSparse) {
    return sparse::Expand8(sparse::Quad<1>(panel, quad));
  } else {
    return LoadQuad(panel + quad * kQuadBytes);
  }
}

// The outliers of a row times a panel, in the order of K.
template <bool kSparse>
inline F32x16 OutlierSums(const TileArgs& args, int64_t row, const char* panel) {
  F32x16 sums = Zero();
  const char* outliers = args.Row(row) + args.rows->outliers;
  const int64_t begin = args.packed_begin;
  const int64_t end = begin + args.num_quads * kQuadK;
  for (int64_t word = begin / 64; word * 64 < end; ++word) {
    uint64_t bits;
    std::memcpy(&bits, outliers + word * 8, sizeof(bits));
    for (; bits != 0; bits &= bits - 1) {
      const int64_t packed = word * 64 + __builtin_ctzll(bits);
      if (packed < begin || packed >= end) continue;  // of a neighbouring slice
      const int64_t k = packed - begin;
      const F32x16 weights = QuadColumn(LoadWeights<kSparse>(panel, k / kQuadK), static_cast<int>(k % kQuadK));
      sums = Fma(Set1(args.x[row * args.x_stride + k]), weights, sums);
    }
  }
  return sums;
}

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
        __builtin_prefetch(panel + quad * bytes + kPrefetchBytes);
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
    PackedSlice slice;
    std::memcpy(&slice, args.Row(r) + args.rows->slices + args.slice * static_cast<int64_t>(sizeof(slice)),
                sizeof(slice));
    for (int p = 0; p < kPanels; ++p) {
      F32x16 sum = Mul(ToFloat(sums[r][p]), Set1(slice.step));
      if (slice.num_outliers > 0) sum = Add(sum, OutlierSums<kSparse>(args, r, args.weight + p * args.panel_bytes));
      Store(args.sums + r * args.sums_stride + p * kPanelOutputs, Mul(sum, Load(args.scales + p * kPanelOutputs)));
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
