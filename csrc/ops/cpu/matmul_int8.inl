// Rows of x rounded to int8, and what becomes of the sums of their products with int8 weights: what the kernels of
// vectors and of tiles share.
//
// Each reduction slice of a row has a step of its own, its largest magnitude / 127: a finer rule than one step a row,
// and one that does not depend on who computes which slice. Sums of products of int8 are exact, so only the last few
// operations round.

namespace heddle::ops::cpu::HEDDLE_ISA {
namespace int8 {

constexpr int64_t kQuadK = 4;
constexpr int64_t kQuadBytes = kQuadK * kPanelOutputs;

inline bool MayHaveOutliers(const MatmulArgs& args) { return args.outlier_threshold < __builtin_inff(); }
// What no magnitude reaches where there are no outliers: not even infinity.
inline float Threshold(const MatmulArgs& args) {
  return MayHaveOutliers(args) ? args.outlier_threshold : __builtin_nanf("");
}

struct RoundedSlice {
  float step;
  int32_t num_outliers;
};

// What is kept of a row of k values beside them: its slices and, where there may be outliers, a bit for each value that
// says whether it is one and therefore zero among the values.
constexpr int64_t kOutliersOffset = kMaxSlices * static_cast<int64_t>(sizeof(RoundedSlice));
inline int64_t NotesBytes(const MatmulArgs& args, int64_t k) {
  return kOutliersOffset + (MayHaveOutliers(args) ? (k + 511) / 512 * 64 : 0);
}
inline RoundedSlice SliceOf(const char* notes, int slice) {
  RoundedSlice result;
  std::memcpy(&result, notes + slice * static_cast<int64_t>(sizeof(result)), sizeof(result));
  return result;
}

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

// Rounds `size` values of slice number `slice`; value k goes, plus kOffset, to place(k), which is asked for every 16th.
// Value 0 is number `first` of the row's. REQUIRES: zeros in `notes`.
template <int kOffset, typename Place>
void RoundSlice(const float* x, int64_t size, float outlier_threshold, int slice, int64_t first, char* notes,
                const Place& place) {
  RoundedSlice rounded{StepOf(x, size, outlier_threshold), 0};
  auto* const outliers = reinterpret_cast<uint8_t*>(notes + kOutliersOffset);
  const F32x16 inverse = Set1(rounded.step > 0 ? 1.0f / rounded.step : 0.0f);
  for (int64_t k = 0; k < size; k += 16) {
    const int64_t count = MinOf(16, size - k);
    F32x16 lanes = LoadPartial(x + k, static_cast<int>(count));
    const uint32_t large = LanesFrom(lanes, outlier_threshold) & ((1u << count) - 1);
    for (uint32_t left = large; left != 0; left &= left - 1, ++rounded.num_outliers) {
      const int64_t at = first + k + __builtin_ctz(left);
      outliers[at / 8] = static_cast<uint8_t>(outliers[at / 8] | 1u << at % 8);
    }
    lanes = Mul(ClearLanes(lanes, large), inverse);
    alignas(16) char values[16];
    StoreInt8(values, rounded.step > 0 ? lanes : Zero());
    for (char& value : values) value = static_cast<char>(value + kOffset);
    std::memcpy(place(k), values, static_cast<size_t>(count));
  }
  std::memcpy(notes + slice * static_cast<int64_t>(sizeof(rounded)), &rounded, sizeof(rounded));
}

template <bool kSparse>
inline I8x64 LoadWeights(const char* panel, int64_t quad) {
  if constexpr (kSparse) {
    return sparse::Expand8(sparse::Quad<1>(panel, quad));
  } else {
    return LoadQuad(panel + quad * kQuadBytes);
  }
}

// The outliers among values [begin, end) of a row times a panel, in the order of K; x and panel from `begin` on.
template <bool kSparse>
F32x16 OutlierSums(const char* notes, int64_t begin, int64_t end, const float* x, const char* panel) {
  F32x16 sums = Zero();
  for (int64_t word = begin / 64; word * 64 < end; ++word) {
    uint64_t bits;
    std::memcpy(&bits, notes + kOutliersOffset + word * 8, sizeof(bits));
    for (; bits != 0; bits &= bits - 1) {
      const int64_t at = word * 64 + __builtin_ctzll(bits);
      if (at < begin || at >= end) continue;  // of a neighbouring slice
      const int64_t k = at - begin;
      const F32x16 weights = QuadColumn(LoadWeights<kSparse>(panel, k / kQuadK), static_cast<int>(k % kQuadK));
      sums = Fma(Set1(x[k]), weights, sums);
    }
  }
  return sums;
}

// What a slice adds to y. outlier_sums() is asked only where there are some.
template <typename Outliers>
inline F32x16 SliceResult(const RoundedSlice& slice, I32x16 sums, const float* scales, const Outliers& outlier_sums) {
  F32x16 result = Mul(ToFloat(sums), Set1(slice.step));
  if (slice.num_outliers > 0) result = Add(result, outlier_sums());
  return Mul(result, Load(scales));
}

}  // namespace int8
}  // namespace heddle::ops::cpu::HEDDLE_ISA
