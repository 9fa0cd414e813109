// What panels of weights are made of, and how a part of one is loaded. The layouts are those of ops/packed_matrix.h.

namespace heddle::ops::cpu::HEDDLE_ISA {

constexpr int64_t StorageBytes(Storage storage) {
  return storage == Storage::kFloat32 ? 4 : storage == Storage::kInt8 ? 1 : 2;
}

// What a panel of weights is made of: groups of a few neighbours in K of its 16 outputs, and what a row of x does with
// one. Int8 values come times kColumnScale.
template <Storage kStorage, bool kSparse>
struct Groups;

template <Storage kStorage>
struct Groups<kStorage, false> {
  static constexpr int kSize = kStorage == Storage::kInt8 ? 4 : 2;
  static constexpr int64_t kBytes = kSize * kPanelOutputs * StorageBytes(kStorage);
  struct Group {
    F32x16 weights[kSize];
  };
  using Row = const float*;

  // Group number `number` from `panel` on.
  static Group Load(const char* panel, int64_t number) {
    const char* p = panel + number * kBytes;
    Group group;
    if constexpr (kStorage == Storage::kFloat32) {
      group.weights[0] = heddle::ops::cpu::HEDDLE_ISA::Load(reinterpret_cast<const float*>(p));
      group.weights[1] = heddle::ops::cpu::HEDDLE_ISA::Load(reinterpret_cast<const float*>(p) + kPanelOutputs);
    } else if constexpr (kStorage == Storage::kBFloat16) {
      LoadBFloat16Pairs(reinterpret_cast<const uint16_t*>(p), &group.weights[0], &group.weights[1]);
    } else if constexpr (kStorage == Storage::kFloat16) {
      group.weights[0] = LoadFloat16(reinterpret_cast<const uint16_t*>(p));
      group.weights[1] = LoadFloat16(reinterpret_cast<const uint16_t*>(p) + kPanelOutputs);
    } else {
      const I8x64 quad = LoadQuad(p);
      for (int j = 0; j < kSize; ++j) group.weights[j] = ScaledColumn(quad, j);
    }
    return group;
  }

  // The neighbours of a row that meet a group.
  static Row LoadRow(const float* x) { return x; }
  // sums += x * group, upwards, or the first `count` neighbours of it.
  static F32x16 MultiplyAdd(Row x, const Group& group, F32x16 sums, int64_t count = kSize) {
    for (int j = 0; j < count; ++j) sums = Fma(Set1(x[j]), group.weights[j], sums);
    return sums;
  }
  static F32x16 Column(const Group& group, int j) { return group.weights[j]; }
};

template <Storage kStorage>
struct Groups<kStorage, true> {
  static constexpr int kSize = 4;
  static constexpr int64_t kBytes = sparse::BlockBytes(StorageBytes(kStorage)) / sparse::kBlockQuads;
  using Group = sparse::Stored;
  using Row = sparse::Neighbours;

  // `panel` is where a block begins.
  static Group Load(const char* panel, int64_t number) { return sparse::Load<kStorage>(panel, number); }
  static Row LoadRow(const float* x) { return sparse::LoadNeighbours(x); }
  // Slices end in whole groups.
  static F32x16 MultiplyAdd(const Row& x, const Group& group, F32x16 sums, int64_t = kSize) {
    return sparse::MultiplyAdd(x, group, sums);
  }
  static F32x16 Column(const Group& group, int j) {
    constexpr float kOnlyOne[4][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}};
    return MultiplyAdd(LoadRow(kOnlyOne[j]), group, Zero());
  }
};

// Calls use(groups) for the groups of such weights.
template <typename Use>
auto WithGroups(Storage storage, bool is_sparse, const Use& use) {
  switch (storage) {
    case Storage::kFloat32:
      return use(Groups<Storage::kFloat32, false>());
    case Storage::kBFloat16:
      return is_sparse ? use(Groups<Storage::kBFloat16, true>()) : use(Groups<Storage::kBFloat16, false>());
    case Storage::kFloat16:
      return is_sparse ? use(Groups<Storage::kFloat16, true>()) : use(Groups<Storage::kFloat16, false>());
    case Storage::kInt8:
      break;
  }
  return is_sparse ? use(Groups<Storage::kInt8, true>()) : use(Groups<Storage::kInt8, false>());
}

// Bytes of a panel up to position `packed` of K, where a group or, of a sparse one, a block begins.
inline int64_t BytesTo(const MatmulArgs& args, int64_t packed) {
  const int64_t element = StorageBytes(args.storage);
  return args.sparse ? packed / sparse::kBlockK * sparse::BlockBytes(element) : packed * kPanelOutputs * element;
}

}  // namespace heddle::ops::cpu::HEDDLE_ISA
