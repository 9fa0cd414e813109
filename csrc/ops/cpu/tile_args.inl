// What the products of AMX work on: rows of x as tiles, panels of weights as tiles.
//
// A panel is as tiles want it: 32 neighbours in K of its 16 outputs are 1 KiB, whole. Rows of x are rounded to bfloat16
// and packed alike, in groups of 16 rows, every slice of K filled up with zeros to whole tiles. The last tile of a
// slice therefore reads weights of the next one, or of the next panel, and multiplies them by zero.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace tiles {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileK = 32;
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kRowBytes = 64;

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

}  // namespace tiles
}  // namespace heddle::ops::cpu::HEDDLE_ISA
