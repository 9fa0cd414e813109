// What all matrix products share: blocks of the result, the sum over slices of K, and the way out of scratch memory.

namespace heddle::ops::cpu::HEDDLE_ISA {

constexpr int kPanelOutputs = 16;
constexpr int64_t kCacheLine = 64;

inline int64_t MinOf(int64_t a, int64_t b) { return a < b ? a : b; }

// Rows of x that are rounded and packed at once stay in L2 while panels pass by.
constexpr int64_t kMaxPackedRows = 256;
constexpr int64_t kPackedRowsBytes = 1 << 20;

// Some rows times some panels.
struct Block {
  int64_t row;
  int64_t rows;
  int64_t panel;
  int64_t panels;
  int64_t columns() const { return panels * kPanelOutputs; }
};

// Sums that SumSlices keeps at once.
constexpr int64_t NumPartialSums(int num_slices) {
  int64_t count = 1;
  for (; num_slices > 1; num_slices /= 2) ++count;
  return count;
}

inline void AddSums(const float* source, int64_t count, float* destination) {
  for (int64_t i = 0; i < count; i += 16) Store(destination + i, Add(Load(destination + i), Load(source + i)));
}

// sums [count] = the results of multiply(slice, sums) for all slices, joined in a balanced tree: whenever two
// neighbouring subtrees of one size are complete they become one, as carries do in a binary counter.
// REQUIRES: room for NumPartialSums(num_slices) times count, a multiple of 16.
template <typename Multiply>
void SumSlices(int num_slices, int64_t count, float* sums, const Multiply& multiply) {
  int depth = 0;
  for (int slice = 0; slice < num_slices; ++slice) {
    multiply(slice, sums + depth * count);
    ++depth;
    for (int complete = slice + 1; complete % 2 == 0; complete /= 2) {
      --depth;
      AddSums(sums + depth * count, count, sums + (depth - 1) * count);
    }
  }
}

// Asks for one of `parts` shares of `bytes` of weights that are needed soon: a share with each of so many tiles.
inline void PrefetchShare(const char* weight, int64_t bytes, int64_t part, int64_t parts) {
  for (int64_t at = bytes * part / parts / kCacheLine * kCacheLine; at < bytes * (part + 1) / parts; at += kCacheLine) {
    __builtin_prefetch(weight + at, 0, 2);
  }
}

// sums [rows, columns] + bias at one row and panel of a block.
inline F32x16 BiasedSum(const float* sums, const float* bias, int64_t column, int count) {
  const F32x16 sum = Load(sums);
  return bias != nullptr ? Add(sum, LoadPartial(bias + column, count)) : sum;
}

// Whether a block's part of y is stored past the caches: what a prompt's product gives is more than they hold, and
// bringing its lines in to overwrite them costs the product a third of its speed.
inline bool StoresPastCaches(const MatmulArgs& args, const Block& block) {
  const auto y = reinterpret_cast<uintptr_t>(args.y);
  const bool aligned = y % kCacheLine == 0 && args.y_stride * static_cast<int64_t>(sizeof(float)) % kCacheLine == 0;
  return aligned && block.rows > kMaxStreamedRows;
}

// y = value(offset into sums, column of y, lanes that exist) for every vector of a block.
template <typename Value>
void StoreBlock(const MatmulArgs& args, const Block& block, const Value& value) {
  const bool past_caches = StoresPastCaches(args, block);
  for (int64_t row = 0; row < block.rows; ++row) {
    float* y = args.y + (block.row + row) * args.y_stride;
    for (int64_t panel = 0; panel < block.panels; ++panel) {
      const int64_t column = (block.panel + panel) * kPanelOutputs;
      const int count = static_cast<int>(MinOf(kPanelOutputs, args.n - column));
      const F32x16 result = value(row * block.columns() + panel * kPanelOutputs, column, count);
      if (past_caches && count == kPanelOutputs) {
        StoreStream(y + column, result);
      } else {
        StorePartial(y + column, result, count);
      }
    }
  }
  if (past_caches) StreamFence();
}

inline void StorePlain(const MatmulArgs& args, const Block& block, const float* sums) {
  StoreBlock(args, block,
             [&](int64_t at, int64_t column, int count) { return BiasedSum(sums + at, args.bias, column, count); });
}

template <F32x16 (*kActivation)(F32x16)>
void StoreGated(const MatmulArgs& args, const Block& block, const float* gate, const float* up) {
  StoreBlock(args, block, [&](int64_t at, int64_t column, int count) {
    const F32x16 activated = kActivation(BiasedSum(gate + at, args.bias, column, count));
    return Mul(activated, BiasedSum(up + at, args.gated->up_bias, column, count));
  });
}

// y of a block. multiply(args) leaves the block's sums, num_sums floats with padding, where args.scratch begins.
template <typename Multiply>
void ComputeBlock(const MatmulArgs& args, const Block& block, int64_t num_sums, const Multiply& multiply) {
  multiply(args);
  if (args.gated == nullptr) return StorePlain(args, block, args.scratch);
  MatmulArgs up = args;
  up.weight = args.gated->up;
  up.scratch = args.scratch + num_sums;
  multiply(up);
  switch (args.gated->kind) {
    case GatedKind::kSilu:
      return StoreGated<Silu>(args, block, args.scratch, up.scratch);
    case GatedKind::kGeluTanh:
      return StoreGated<GeluTanh>(args, block, args.scratch, up.scratch);
    case GatedKind::kGelu:
      return StoreGated<Gelu>(args, block, args.scratch, up.scratch);
  }
}

}  // namespace heddle::ops::cpu::HEDDLE_ISA
