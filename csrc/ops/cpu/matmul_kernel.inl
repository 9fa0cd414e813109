// y = x * weight^T over packed panels.
//
// Lanes are outputs: each output is one chain of fused multiply-adds a slice, upwards over K, and slices are joined in
// a balanced tree. Every path below keeps that order, so they agree to the bit; they differ in what they keep in
// registers and caches only:
//   up to four rows    all of K in registers, several panels at once: streams the weights at memory speed
//   more rows          tiles of rows, blocked so that x stays in the second cache level and a panel's chunk in the
//   first
namespace heddle::ops::cpu::HEDDLE_ISA {

// Slices 1, 2, 4 or 8: partial sums of 1, 2, 4 and 8 slices, and the one being computed.
constexpr int kNumPartials = 5;
constexpr int kMatmulRows = 96;
constexpr int kPanelGroup = 4;
constexpr int64_t kMatmulChunk = 512;  // of K; even
constexpr int kPrefetchBytes = 2048;

// Tile shapes by the number of vector registers: 32 with AVX-512, 16 of half the width with AVX2.
#if defined(__AVX512F__)
constexpr int kTileRows = 14;
constexpr int kPanelsForRows[5] = {0, 8, 8, 6, 4};
#else
constexpr int kTileRows = 6;
constexpr int kPanelsForRows[5] = {0, 4, 2, 2, 1};
#endif

template <Storage S>
struct Element {
  using Type = uint16_t;
};
template <>
struct Element<Storage::kFloat32> {
  using Type = float;
};

inline F32x16 LoadWeights(const float* p) { return Load(p); }
inline F32x16 LoadWeights(const uint16_t* p) { return LoadFloat16(p); }

// sums[row][panel] += x[row][0 .. k) * panel[0 .. k). A pair's second half beyond k is never multiplied: x may hold
// anything there.
template <Storage S, int kRows, int kPanels>
inline __attribute__((always_inline)) void Accumulate(const float* x, int64_t x_stride,
                                                      const typename Element<S>::Type* const* panels, int64_t k,
                                                      F32x16 (&sums)[kRows][kPanels]) {
  using Type = typename Element<S>::Type;
  constexpr int kAhead = kPrefetchBytes / static_cast<int>(sizeof(Type));
  if constexpr (S == Storage::kBFloat16) {
    int64_t i = 0;
    for (; i + 1 < k; i += 2) {
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) {
        F32x16 first, second;
        const Type* weights = panels[p] + i * 16;
        __builtin_prefetch(weights + kAhead);
        LoadBFloat16Pairs(weights, &first, &second);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) sums[r][p] = Fma(Set1(x[r * x_stride + i]), first, sums[r][p]);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) sums[r][p] = Fma(Set1(x[r * x_stride + i + 1]), second, sums[r][p]);
      }
    }
    if (i < k) {
      for (int p = 0; p < kPanels; ++p) {
        F32x16 first, second;
        LoadBFloat16Pairs(panels[p] + i * 16, &first, &second);
        for (int r = 0; r < kRows; ++r) sums[r][p] = Fma(Set1(x[r * x_stride + i]), first, sums[r][p]);
      }
    }
  } else {
    for (int64_t i = 0; i < k; ++i) {
#pragma GCC unroll 8
      for (int p = 0; p < kPanels; ++p) {
        const Type* weights = panels[p] + i * 16;
        __builtin_prefetch(weights + kAhead);
        const F32x16 loaded = LoadWeights(weights);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) sums[r][p] = Fma(Set1(x[r * x_stride + i]), loaded, sums[r][p]);
      }
    }
  }
}

inline void StoreOutputs(const MatmulArgs& args, int64_t row, int64_t panel, F32x16 sum) {
  const int64_t column = panel * 16;
  const int count = args.n - column < 16 ? static_cast<int>(args.n - column) : 16;
  if (args.bias != nullptr) sum = Add(sum, LoadPartial(args.bias + column, count));
  float* y = args.y + row * args.y_stride + column;
  if (count == 16) {
    Store(y, sum);
  } else {
    StorePartial(y, sum, count);
  }
}

// kRows rows from `row`, kPanels panels from `panel`, all of K.
template <Storage S, int kRows, int kPanels>
void FewRows(const MatmulArgs& args, int64_t row, int64_t panel) {
  using Type = typename Element<S>::Type;
  const float* x = args.x + row * args.x_stride;
  // partials[i]: the sum of 2^i finished slices, as bit i of the number of finished slices says.
  F32x16 partials[kNumPartials - 1][kRows][kPanels];
  for (int slice = 0;; ++slice) {
    F32x16 sums[kRows][kPanels];
    for (int r = 0; r < kRows; ++r) {
      for (int p = 0; p < kPanels; ++p) sums[r][p] = Zero();
    }
    const Type* weights[kPanels];
    for (int p = 0; p < kPanels; ++p) {
      weights[p] =
          reinterpret_cast<const Type*>(static_cast<const char*>(args.weight) + (panel + p) * args.panel_bytes) +
          args.packed_bounds[slice] * 16;
    }
    const int64_t begin = args.slice_bounds[slice];
    Accumulate<S, kRows, kPanels>(x + begin, args.x_stride, weights, args.slice_bounds[slice + 1] - begin, sums);

    int level = 0;
    for (; (slice >> level) & 1; ++level) {
      for (int r = 0; r < kRows; ++r) {
        for (int p = 0; p < kPanels; ++p) sums[r][p] = Add(partials[level][r][p], sums[r][p]);
      }
    }
    if (slice + 1 == args.num_slices) {
      for (int r = 0; r < kRows; ++r) {
        for (int p = 0; p < kPanels; ++p) StoreOutputs(args, row + r, panel + p, sums[r][p]);
      }
      return;
    }
    for (int r = 0; r < kRows; ++r) {
      for (int p = 0; p < kPanels; ++p) partials[level][r][p] = sums[r][p];
    }
  }
}

template <Storage S, int kRows>
void FewRowsOverPanels(const MatmulArgs& args, int64_t panel_begin, int64_t panel_end) {
  constexpr int kPanels = kPanelsForRows[kRows];
  int64_t panel = panel_begin;
  for (; panel + kPanels <= panel_end; panel += kPanels) FewRows<S, kRows, kPanels>(args, 0, panel);
  for (; panel < panel_end; ++panel) FewRows<S, kRows, 1>(args, 0, panel);
}

// sums [kRows][16] (+)= x * panel over a chunk of K.
template <Storage S, int kRows>
void Tile(const float* x, int64_t x_stride, const typename Element<S>::Type* panel, int64_t k, bool first,
          float* sums) {
  F32x16 registers[kRows][1];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) registers[r][0] = first ? Zero() : Load(sums + r * 16);
  Accumulate<S, kRows, 1>(x, x_stride, &panel, k, registers);
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) Store(sums + r * 16, registers[r][0]);
}

// All rows of a block, in tiles of kTileRows; the rest in one smaller tile.
template <Storage S, int kRows = kTileRows>
void Tiles(const float* x, int64_t x_stride, int64_t num_rows, const typename Element<S>::Type* panel, int64_t k,
           bool first, float* sums) {
  for (; num_rows >= kRows; num_rows -= kRows, x += kRows * x_stride, sums += kRows * 16) {
    Tile<S, kRows>(x, x_stride, panel, k, first, sums);
  }
  if constexpr (kRows > 1) {
    if (num_rows > 0) Tiles<S, kRows - 1>(x, x_stride, num_rows, panel, k, first, sums);
  }
}

// One slice of a block of rows and a group of panels into sums [panels][num_rows][16].
template <Storage S>
void SliceOfGroup(const MatmulArgs& args, int slice, int64_t row, int64_t num_rows, int64_t panel, int num_panels,
                  float* sums) {
  using Type = typename Element<S>::Type;
  const int64_t begin = args.slice_bounds[slice];
  const int64_t size = args.slice_bounds[slice + 1] - begin;
  // An empty slice still sets its sums, to zero.
  for (int64_t k = 0; k == 0 || k < size; k += kMatmulChunk) {
    const int64_t length = size - k < kMatmulChunk ? size - k : kMatmulChunk;
    const float* x = args.x + row * args.x_stride + begin + k;
    for (int p = 0; p < num_panels; ++p) {
      const Type* weights =
          reinterpret_cast<const Type*>(static_cast<const char*>(args.weight) + (panel + p) * args.panel_bytes) +
          (args.packed_bounds[slice] + k) * 16;
      Tiles<S>(x, args.x_stride, num_rows, weights, length, k == 0, sums + p * num_rows * 16);
    }
  }
}

template <Storage S>
void ManyRows(const MatmulArgs& args, int64_t panel_begin, int64_t panel_end) {
  constexpr int64_t kPartialFloats = int64_t{kPanelGroup} * kMatmulRows * 16;
  for (int64_t row = 0; row < args.m; row += kMatmulRows) {
    const int64_t num_rows = args.m - row < kMatmulRows ? args.m - row : kMatmulRows;
    for (int64_t panel = panel_begin; panel < panel_end; panel += kPanelGroup) {
      const int num_panels = panel_end - panel < kPanelGroup ? static_cast<int>(panel_end - panel) : kPanelGroup;
      const int64_t floats = num_panels * num_rows * 16;
      float* partials[kNumPartials];
      for (int i = 0; i < kNumPartials; ++i) partials[i] = args.scratch + i * kPartialFloats;
      float* sums = partials[kNumPartials - 1];
      for (int slice = 0; slice < args.num_slices; ++slice) {
        SliceOfGroup<S>(args, slice, row, num_rows, panel, num_panels, sums);
        int level = 0;
        for (; (slice >> level) & 1; ++level) {
          for (int64_t i = 0; i < floats; i += 16) Store(sums + i, Add(Load(partials[level] + i), Load(sums + i)));
        }
        float* const free = partials[level];
        partials[level] = sums;
        sums = free;
      }
      const float* total = nullptr;
      for (int level = 0; level < kNumPartials - 1; ++level) {
        if ((args.num_slices >> level) & 1) total = partials[level];
      }
      for (int p = 0; p < num_panels; ++p) {
        for (int64_t r = 0; r < num_rows; ++r) {
          StoreOutputs(args, row + r, panel + p, Load(total + (p * num_rows + r) * 16));
        }
      }
    }
  }
}

template <Storage S>
void MatmulOf(const MatmulArgs& args, int64_t panel_begin, int64_t panel_end) {
  switch (args.m) {
    case 1:
      return FewRowsOverPanels<S, 1>(args, panel_begin, panel_end);
    case 2:
      return FewRowsOverPanels<S, 2>(args, panel_begin, panel_end);
    case 3:
      return FewRowsOverPanels<S, 3>(args, panel_begin, panel_end);
    case 4:
      return FewRowsOverPanels<S, 4>(args, panel_begin, panel_end);
    default:
      return ManyRows<S>(args, panel_begin, panel_end);
  }
}

void Matmul(const MatmulArgs& args, int64_t panel_begin, int64_t panel_end) {
  switch (args.storage) {
    case Storage::kFloat32:
      return MatmulOf<Storage::kFloat32>(args, panel_begin, panel_end);
    case Storage::kBFloat16:
      return MatmulOf<Storage::kBFloat16>(args, panel_begin, panel_end);
    case Storage::kFloat16:
      return MatmulOf<Storage::kFloat16>(args, panel_begin, panel_end);
  }
}

size_t MatmulScratchFloats() { return size_t{kNumPartials} * kPanelGroup * kMatmulRows * 16; }

}  // namespace heddle::ops::cpu::HEDDLE_ISA
