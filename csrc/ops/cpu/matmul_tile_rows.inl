// Rows of x in tiles of 16 rows by 64 bytes, for bfloat16 and for int8 weights.
//
// Rows are rounded and packed in groups of 16, every slice of K filled up with zeros to whole tiles. The last tile of a
// slice therefore reads weights of the next one, or of what follows, and multiplies them by zero.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace tiles {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kRowBytes = 64;

inline int64_t NumGroups(int64_t rows) { return (rows + kTileRows - 1) / kTileRows; }

// The tiles of a group of rows, slice by slice.
struct SliceTiles {
  SliceTiles(const MatmulArgs& args, int64_t tile_k) {
    for (int s = 0; s < args.num_slices; ++s) {
      const int64_t count = (args.slice_bounds[s + 1] - args.slice_bounds[s] + tile_k - 1) / tile_k;
      before[s + 1] = before[s] + count;
      longest = count > longest ? count : longest;
    }
    total = before[args.num_slices];
  }
  int64_t before[kMaxSlices + 1] = {};
  int64_t total = 0;
  int64_t longest = 1;
};

// Rows rounded to bfloat16; the sums are float32.
struct BFloat16Rows {
  static constexpr bool kInt8 = false;
  static constexpr int64_t kTileK = 32;

  explicit BFloat16Rows(const MatmulArgs& args) : slices(args, kTileK), group_bytes(slices.total * kTileBytes) {}

  // Row `row` of a group at `group`, its tiles' rows kTileBytes apart.
  void PackRow(const MatmulArgs& args, int64_t row, char* group) const {
    char* out = group + row % kTileRows * kRowBytes;
    const float* x = args.x + row * args.x_stride;
    for (int s = 0; s < args.num_slices; ++s) {
      for (int64_t k = args.slice_bounds[s]; k < args.slice_bounds[s + 1]; k += kTileK, out += kTileBytes) {
        const int64_t count = MinOf(kTileK, args.slice_bounds[s + 1] - k);
        const F32x16 first = LoadPartial(x + k, static_cast<int>(MinOf(count, 16)));
        const F32x16 second = count > 16 ? LoadPartial(x + k + 16, static_cast<int>(count - 16)) : Zero();
        _mm512_storeu_si512(out, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second.v, first.v)));
      }
    }
  }

  // What the products' sums over a slice, of a row and a panel, add to y.
  F32x16 SliceResult(const MatmulArgs& args, const char*, int64_t, int64_t panel, int, const float* sums) const {
    if (args.scales == nullptr) return Load(sums);
    return Mul(Mul(Load(sums), Set1(1 / kColumnScale)), Load(args.scales + panel * kPanelOutputs));
  }

  SliceTiles slices;
  int64_t group_bytes;
};

// Rows rounded to int8, each slice by its own step; the sums are int32. The rows' notes follow a group's tiles.
struct Int8Rows {
  static constexpr bool kInt8 = true;
  static constexpr int64_t kTileK = 64;

  explicit Int8Rows(const MatmulArgs& args)
      : slices(args, kTileK),
        notes_bytes(int8::NotesBytes(args, slices.total * kTileK)),
        group_bytes(slices.total * kTileBytes + kTileRows * notes_bytes) {}

  void PackRow(const MatmulArgs& args, int64_t row, char* group) const {
    char* const out = group + row % kTileRows * kRowBytes;
    for (int64_t i = 0; i < slices.total; ++i) _mm512_storeu_si512(out + i * kTileBytes, _mm512_setzero_si512());
    char* const notes = group + NotesAt(row);
    std::memset(notes, 0, static_cast<size_t>(notes_bytes));
    for (int s = 0; s < args.num_slices; ++s) {
      const float* x = args.x + row * args.x_stride + args.slice_bounds[s];
      const int64_t size = args.slice_bounds[s + 1] - args.slice_bounds[s];
      char* const slice = out + slices.before[s] * kTileBytes;
      int8::RoundSlice<0>(x, size, int8::Threshold(args), s, slices.before[s] * kTileK, notes,
                          [&](int64_t k) { return slice + k / kTileK * kTileBytes + k % kTileK; });
    }
  }

  F32x16 SliceResult(const MatmulArgs& args, const char* packed, int64_t row, int64_t panel, int slice,
                     const float* sums) const {
    const char* const notes = packed + row / kTileRows * group_bytes + NotesAt(row);
    return int8::SliceResult(int8::SliceOf(notes, slice), LoadInt32(reinterpret_cast<const int32_t*>(sums)),
                             args.scales + panel * kPanelOutputs, [&] {
                               const float* const x = args.x + row * args.x_stride + args.slice_bounds[slice];
                               const char* const weight = static_cast<const char*>(args.weight) +
                                                          panel * args.panel_bytes +
                                                          BytesTo(args, args.packed_bounds[slice]);
                               const int64_t begin = slices.before[slice] * kTileK;
                               const int64_t end = slices.before[slice + 1] * kTileK;
                               return args.sparse ? int8::OutlierSums<true>(notes, begin, end, x, weight)
                                                  : int8::OutlierSums<false>(notes, begin, end, x, weight);
                             });
  }

  int64_t NotesAt(int64_t row) const { return slices.total * kTileBytes + row % kTileRows * notes_bytes; }

  SliceTiles slices;
  int64_t notes_bytes;
  int64_t group_bytes;
};

// Rows of so many tiles that fit kPackedRowsBytes, in whole pairs of groups.
inline int64_t FittingRows(int64_t num_tiles) {
  return kPackedRowsBytes / (num_tiles * kTileBytes) * kTileRows / (2 * kTileRows) * (2 * kTileRows);
}

template <typename Rows>
int64_t BlockRows(const MatmulArgs& args) {
  const int64_t rows = FittingRows(Rows(args).slices.longest);
  return rows < 2 * kTileRows ? 2 * kTileRows : MinOf(rows, kMaxPackedRows);
}

template <typename Rows>
size_t PackedBytes(const MatmulArgs& args) {
  return static_cast<size_t>(NumGroups(args.m) * Rows(args).group_bytes);
}

template <typename Rows>
void Pack(const MatmulArgs& args, int64_t begin, int64_t end, void* packed) {
  const Rows rows(args);
  for (int64_t row = begin * kTileRows; row < end * kTileRows; ++row) {
    char* const group = static_cast<char*>(packed) + row / kTileRows * rows.group_bytes;
    if (row < args.m) {
      rows.PackRow(args, row, group);
    } else if (args.m > kTileRows) {  // else the only group is multiplied in tiles of so many rows
      char* const out = group + row % kTileRows * kRowBytes;
      for (int64_t i = 0; i < rows.slices.total; ++i) {
        _mm512_storeu_si512(out + i * kTileBytes, _mm512_setzero_si512());
      }
    }
  }
}

}  // namespace tiles
}  // namespace heddle::ops::cpu::HEDDLE_ISA
