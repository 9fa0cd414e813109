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
    Prefetch(weight + at);
  }
}

// Columns of y that a panel has.
inline int PanelColumns(const MatmulArgs& args, int64_t panel) {
  return static_cast<int>(MinOf(kPanelOutputs, args.n - panel * kPanelOutputs));
}

inline F32x16 AddBias(const MatmulArgs& args, const float* bias, int64_t panel, F32x16 sum) {
  return bias != nullptr ? Add(sum, LoadPartial(bias + panel * kPanelOutputs, PanelColumns(args, panel))) : sum;
}

// Whether a block's part of y is stored past the caches: what a prompt's product gives is more than they hold, and
// bringing its lines in to overwrite them costs the product a third of its speed. Whoever stores so ends with
// StreamFence.
inline bool StoresPastCaches(const MatmulArgs& args, const Block& block) {
  const auto y = reinterpret_cast<uintptr_t>(args.y);
  const bool aligned = y % kCacheLine == 0 && args.y_stride * static_cast<int64_t>(sizeof(float)) % kCacheLine == 0;
  return aligned && block.rows > kMaxStreamedRows;
}

inline void StoreY(const MatmulArgs& args, bool past_caches, int64_t row, int64_t panel, F32x16 result) {
  const int count = PanelColumns(args, panel);
  float* const y = args.y + row * args.y_stride + panel * kPanelOutputs;
  if (past_caches && count == kPanelOutputs) {
    StoreStream(y, result);
  } else {
    StorePartial(y, result, count);
  }
}

template <F32x16 (*kActivation)(F32x16), typename Multiply>
void ComputeGatedBlock(const MatmulArgs& args, const Block& block, const Multiply& multiply) {
  const bool past_caches = StoresPastCaches(args, block);
  float* const gate = args.scratch;  // [rows, columns]
  const auto gate_at = [&](int64_t row, int64_t panel) {
    return gate + (row - block.row) * block.columns() + (panel - block.panel) * kPanelOutputs;
  };
  MatmulArgs half = args;
  half.scratch += block.rows * block.columns();
  multiply(half, [&](int64_t row, int64_t panel, F32x16 sum) { Store(gate_at(row, panel), sum); });
  half.weight = args.gated->up;
  half.scales = args.gated->up_scales;
  half.slice_sums = args.gated->up_slice_sums;
  multiply(half, [&](int64_t row, int64_t panel, F32x16 sum) {
    const F32x16 activated = kActivation(AddBias(args, args.bias, panel, Load(gate_at(row, panel))));
    StoreY(args, past_caches, row, panel, Mul(activated, AddBias(args, args.gated->up_bias, panel, sum)));
  });
}

// y of a block. multiply(args, finish) calls finish(row, panel, sum) with every row of x and panel of the block, as
// early as it has the sum; args.scratch is what it may use meanwhile, the first half of a gated product less.
template <typename Multiply>
void ComputeBlock(const MatmulArgs& args, const Block& block, const Multiply& multiply) {
  if (args.gated == nullptr) {
    const bool past_caches = StoresPastCaches(args, block);
    return multiply(args, [&](int64_t row, int64_t panel, F32x16 sum) {
      StoreY(args, past_caches, row, panel, AddBias(args, args.bias, panel, sum));
    });
  }
  switch (args.gated->kind) {
    case GatedKind::kSilu:
      return ComputeGatedBlock<Silu>(args, block, multiply);
    case GatedKind::kGeluTanh:
      return ComputeGatedBlock<GeluTanh>(args, block, multiply);
    case GatedKind::kGelu:
      return ComputeGatedBlock<Gelu>(args, block, multiply);
  }
}

// finish(row, panel, sum) for a block's sums [rows, columns].
template <typename Finish>
void FinishBlock(const Block& block, const float* sums, const Finish& finish) {
  for (int64_t row = 0; row < block.rows; ++row) {
    for (int64_t panel = 0; panel < block.panels; ++panel, sums += kPanelOutputs) {
      finish(block.row + row, block.panel + panel, Load(sums));
    }
  }
}

}  // namespace heddle::ops::cpu::HEDDLE_ISA
