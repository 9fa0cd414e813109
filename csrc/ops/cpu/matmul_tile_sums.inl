// The sums that tiles give, and how those of slices are joined.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace tiles {

// Two by two tiles of sums.
constexpr int64_t kTileSumColumns = 2 * kPanelOutputs;
constexpr int64_t kTileSums = 2 * kTileRows * kTileSumColumns;
constexpr int64_t kSumsRowBytes = kTileSumColumns * sizeof(float);
constexpr int64_t kSecondRows = kTileRows * kTileSumColumns;

// The sums of passes or of chunks, `size` floats each, joined in a balanced tree as they come, like SumSlices but
// without storing what is joined at once. As in a binary counter, number `index` joins all subtrees of its size that
// are complete and takes their place: before the last of `count` there are log2(count) sums at most.
struct PartialSums {
  PartialSums(float* first_sums, int64_t floats, int index) : size(floats) {
    while ((index >> num_joined & 1) != 0) ++num_joined;
    int depth = -num_joined;
    for (; index != 0; index &= index - 1) ++depth;
    sums = first_sums + depth * size;
  }
  F32x16 Joined(F32x16 value, int64_t at) const {
    for (int i = num_joined - 1; i >= 0; --i) value = Add(Load(sums + i * size + at), value);
    return value;
  }
  float* sums;  // where this one's go; those that it joins begin here too, `size` apart
  int64_t size;
  int num_joined = 0;
};

// Sums that PartialSums keeps: the last of `count` joins those before it and needs no place of its own.
constexpr int64_t NumSumsKept(int count) { return count == 1 ? 1 : NumPartialSums(count) - 1; }

// The sum over `kCount` neighbouring slices from `slice` on, as a balanced tree. result(slice, sums) is what a slice's
// sums add to y.
template <int kCount, typename Result>
inline F32x16 SumTree(const Result& result, int slice, const float* sums) {
  if constexpr (kCount == 1) {
    return result(slice, sums);
  } else {
    return Add(SumTree<kCount / 2>(result, slice, sums),
               SumTree<kCount / 2>(result, slice + kCount / 2, sums + kCount / 2 * kTileSums));
  }
}

// Two by two tiles of sums for each of some slices.
struct SlicesSums {
  const float* sums;
  int first_slice;
  int slices;  // a power of two
  int64_t first_row;
  int64_t rows;
  int64_t first_panel;
  int64_t panels;
};

// Calls take(row, panel, sum over slices) of result(row, panel, slice, sums), what a slice's sums add to y.
template <int kCount, typename Result, typename Take>
void SumTiles(const SlicesSums& of, const Result& result, const Take& take) {
  for (int64_t i = 0; i < of.rows; ++i) {
    for (int64_t j = 0; j < of.panels; ++j) {
      const int64_t row = of.first_row + i;
      const int64_t panel = of.first_panel + j;
      const auto of_slice = [&](int slice, const float* sums) { return result(row, panel, slice, sums); };
      const float* const sums = of.sums + i * kTileSumColumns + j * kPanelOutputs;
      take(row, panel, SumTree<kCount>(of_slice, of.first_slice, sums));
    }
  }
}

template <typename Result, typename Take>
void SumTiles(const SlicesSums& of, const Result& result, const Take& take) {
  switch (of.slices) {
    case 1:
      return SumTiles<1>(of, result, take);
    case 2:
      return SumTiles<2>(of, result, take);
    case 4:
      return SumTiles<4>(of, result, take);
    default:
      return SumTiles<8>(of, result, take);
  }
}

}  // namespace tiles
}  // namespace heddle::ops::cpu::HEDDLE_ISA
