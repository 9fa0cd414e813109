// The products of a few tiles.
//
// One tile instruction of bfloat16 sums 16 products of elements at even positions, 16 of those at odd ones, both
// upwards, and adds the two to the accumulator. A row's result depends on nothing else. Those of int8 are exact.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace tiles {

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

// Tile register kSums += rows in 4 or 5 times weights in 6 or 7.
template <bool kInt8, int kSums>
inline void MultiplyTile() {
  if constexpr (kSums == 0) {
    if constexpr (kInt8) _tile_dpbssd(0, 4, 6);
    if constexpr (!kInt8) _tile_dpbf16ps(0, 4, 6);
  } else if constexpr (kSums == 1) {
    if constexpr (kInt8) _tile_dpbssd(1, 4, 7);
    if constexpr (!kInt8) _tile_dpbf16ps(1, 4, 7);
  } else if constexpr (kSums == 2) {
    if constexpr (kInt8) _tile_dpbssd(2, 5, 6);
    if constexpr (!kInt8) _tile_dpbf16ps(2, 5, 6);
  } else {
    if constexpr (kInt8) _tile_dpbssd(3, 5, 7);
    if constexpr (!kInt8) _tile_dpbf16ps(3, 5, 7);
  }
}

// The registers of one or two groups of rows times one or two panels = sums [32, 32], or zeros.
inline void BeginTiles(int64_t groups, int64_t panels, const float* sums) {
  if (sums == nullptr) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    return;
  }
  MemoryFence();
  _tile_loadd(0, sums, kSumsRowBytes);
  if (panels > 1) _tile_loadd(1, sums + kPanelOutputs, kSumsRowBytes);
  if (groups > 1) _tile_loadd(2, sums + kSecondRows, kSumsRowBytes);
  if (groups > 1 && panels > 1) _tile_loadd(3, sums + kSecondRows + kPanelOutputs, kSumsRowBytes);
}

// One or two groups of rows times one or two panels over some tiles of K.
struct TileArgs {
  const char* x;        // tiles of the first group
  int64_t group_bytes;  // from a group to the next
  const char* weight;   // tiles of the first panel
  int64_t panel_bytes;  // from a panel to the next
  int64_t num_tiles;
  const char* next;  // weights of the first panel that are asked for meanwhile
  int64_t next_panel_bytes;
};

constexpr int kLinesOfTile = 16;

template <int kLines>
inline void PrefetchLines(const char* at) {
  for (int line = 0; line < kLines; ++line) Prefetch(at + line * kCacheLine);
}

// Adds to the tile registers. With each tile of weights kLines of those to come are asked for: all 16 of a tile where
// weights are streamed, a panel at a time, which rows of x wait for in L1. In a block it is the other way round:
// weights stay in L1 while rows come from L2, by loads that leave L1 alone.
template <bool kInt8, int kGroups, int kPanels, int kLines>
void MultiplyTiles(const TileArgs& args) {
  constexpr bool kStream = kLines == kLinesOfTile;
  static_assert(!kStream || kPanels == 1);
  MemoryFence();
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
    MultiplyTile<kInt8, 0>();
    PrefetchLines<kLines>(next);
    if constexpr (kPanels > 1) {
      _tile_loadd(7, weight + args.panel_bytes, kRowBytes);
      MultiplyTile<kInt8, 1>();
      PrefetchLines<kLines>(next + args.next_panel_bytes);
    }
    if constexpr (kGroups > 1) {
      if constexpr (kStream) {
        _tile_loadd(5, x + args.group_bytes, kRowBytes);
      } else {
        _tile_stream_loadd(5, x + args.group_bytes, kRowBytes);
      }
      MultiplyTile<kInt8, 2>();
      if constexpr (kPanels > 1) MultiplyTile<kInt8, 3>();
    }
    x += kTileBytes;
    weight += kTileBytes;
    next += kLines * kCacheLine;
  }
}

template <bool kInt8>
void MultiplyStreamedTiles(int64_t groups, const TileArgs& args) {
  return groups > 1 ? MultiplyTiles<kInt8, 2, 1, kLinesOfTile>(args) : MultiplyTiles<kInt8, 1, 1, kLinesOfTile>(args);
}

// The same for one panel whose tiles are made on the way: make(i, tile) writes number i into the ring `made`, some
// tiles before it is loaded, since a load of what is still on its way to L1 waits.
constexpr int64_t kMadeAhead = 2;
constexpr int64_t kMadeTiles = 4;  // a power of two
template <bool kInt8, int kGroups, typename Make>
void MultiplyMadeTiles(const TileArgs& args, char* made, const Make& make) {
  const auto made_at = [&](int64_t i) { return made + i % kMadeTiles * kTileBytes; };
  for (int64_t i = 0; i < MinOf(kMadeAhead, args.num_tiles); ++i) make(i, made_at(i));
  const char* x = args.x;
  for (int64_t i = 0; i < args.num_tiles; ++i, x += kTileBytes) {
    MemoryFence();
    _tile_loadd(4, x, kRowBytes);
    _tile_loadd(6, made_at(i), kRowBytes);
    if constexpr (kGroups > 1) _tile_loadd(5, x + args.group_bytes, kRowBytes);
    MemoryFence();
    if (i + kMadeAhead < args.num_tiles) make(i + kMadeAhead, made_at(i + kMadeAhead));
    MultiplyTile<kInt8, 0>();
    if constexpr (kGroups > 1) MultiplyTile<kInt8, 2>();
  }
}

template <bool kInt8, int kLines>
void MultiplyBlockTiles(int64_t groups, int64_t panels, const TileArgs& args) {
  if (groups > 1) {
    return panels > 1 ? MultiplyTiles<kInt8, 2, 2, kLines>(args) : MultiplyTiles<kInt8, 2, 1, kLines>(args);
  }
  return panels > 1 ? MultiplyTiles<kInt8, 1, 2, kLines>(args) : MultiplyTiles<kInt8, 1, 1, kLines>(args);
}

// `lines` is 0, 2, 4 or 8.
template <bool kInt8>
void MultiplyBlockTiles(int64_t lines, int64_t groups, int64_t panels, const TileArgs& args) {
  switch (lines) {
    case 0:
      return MultiplyBlockTiles<kInt8, 0>(groups, panels, args);
    case 2:
      return MultiplyBlockTiles<kInt8, 2>(groups, panels, args);
    case 4:
      return MultiplyBlockTiles<kInt8, 4>(groups, panels, args);
    default:
      return MultiplyBlockTiles<kInt8, 8>(groups, panels, args);
  }
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
