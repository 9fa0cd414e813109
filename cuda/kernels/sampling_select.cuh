// Finding the k-th best, the cut of top-p and the token of a draw: all three are the candidate at which a sum over the
// candidates, in some order, reaches a target. Nothing is sorted. The range of keys that holds that candidate is cut
// into 16 parts, over and over, until it is alone. Every thread has sums of its own for the parts, so there are no
// atomic additions, equal candidates cost no more than different ones, and the sums are of integers: the order of
// threads and of candidates does not show.
#pragma once

#include "kernels/sampling_candidates.cuh"

namespace heddle::cuda::sampling {

enum class Order {
  kValue,         // counts candidates by value; key: OrderOf(value)
  kValueThenId,   // the lower id first among equals; key: ValueKey
  kWeightThenId,  // adds up weights; key: WeightKey
  kId,            // adds up weights in ascending order of id; key: IdKey
};

// The sum to find.
struct Target {
  double part;       // this part
  uint64_t whole;    // of which it is a part; 0: of the sum of all candidates
  bool is_excluded;  // the sum must be larger than that part

  static __device__ Target Count(int k) { return {1.0, static_cast<uint64_t>(k), false}; }
  static __device__ Target Draw(double random) { return {random, 0, true}; }

  // REQUIRES: sum > 0, which is the most that can be reached.
  __device__ uint64_t At(uint64_t sum) const {
    const double amount = part * __ull2double_rn(whole > 0 ? whole : sum);
    const uint64_t target = is_excluded ? __double2ull_rd(amount) + 1 : __double2ull_ru(amount);
    return min(max(target, uint64_t{1}), sum);
  }
};

struct KeyRange {
  uint64_t low;
  int bits;  // keys low to low + 2^bits - 1; at least 1

  __device__ uint64_t High() const { return low + ((uint64_t{1} << bits) - 1); }
};

__device__ inline KeyRange FullRange(const Candidates& candidates, Order order) {
  uint64_t low = 0;
  uint64_t high = candidates.IdMask();
  if (order == Order::kWeightThenId) {
    low = candidates.min_weight_key;
    high = candidates.WeightKey(1.0f, 0);
  } else if (order != Order::kId) {
    const int id_bits = order == Order::kValue ? 0 : candidates.id_bits;
    low = uint64_t{OrderOf(candidates.min_value)} << id_bits;
    high = (uint64_t{OrderOf(candidates.max_value)} + 1) << id_bits;
  }
  return {low, high > low ? 64 - __clzll(static_cast<int64_t>(high - low)) : 1};
}

// What a thread saw of a range: how many candidates, and the key of one.
struct Seen {
  int count = 0;
  uint64_t key = 0;
};

// How many threads take the candidates: few for a short list, since what takes time then are their part sums.
__device__ __forceinline__ int NumColumns(const Candidates& candidates) {
  constexpr int kPerThread = 4;
  const int warps = (candidates.list_size + 32 * kPerThread - 1) / (32 * kPerThread);
  return candidates.list_size < 0 ? kThreads : min(max(warps, 1) * 32, kThreads);
}

// Adds the candidates of a range to the calling thread's part sums.
__device__ __forceinline__ Seen AddToParts(Shared& shared, const Candidates& candidates, Order order, KeyRange range,
                                           int shift, int num_columns) {
#pragma unroll
  for (int part = 0; part < kParts; ++part) shared.parts[part][threadIdx.x] = 0;
  // Values whose weight may lie in the range, generously: the others need no exponential.
  float low_value = candidates.min_value;
  float high_value = kInfinity;
  if (order == Order::kWeightThenId) {
    low_value = fmaxf(low_value, logf(candidates.WeightOfKey(range.low)) - kValueMargin);
    high_value = logf(candidates.WeightOfKey(range.High())) + kValueMargin;
  }
  BlockRange blocks{0, candidates.num_blocks};
  if (order == Order::kId) {
    blocks = {candidates.IdOfKey(min(range.High(), candidates.IdMask())) / kBlockSize,
              candidates.IdOfKey(range.low) / kBlockSize + 1};
  }
  Seen seen;
  ForEachCandidate(shared, candidates, blocks, num_columns, [&](float value, int id) {
    if (value < low_value || value > high_value) return;
    uint64_t key;
    uint64_t amount = 1;
    if (order == Order::kValue) {
      key = OrderOf(value);
    } else if (order == Order::kValueThenId) {
      key = candidates.ValueKey(value, id);
    } else {
      const float weight = WeightOf(value);
      key = candidates.WeightKey(weight, id);
      if (key < candidates.min_weight_key) return;
      if (order == Order::kId) key = candidates.IdKey(id);
      amount = candidates.fixed_point(weight);
    }
    const uint64_t offset = key - range.low;
    if (offset >> range.bits != 0) return;
    shared.parts[offset >> shift][threadIdx.x] += amount;
    ++seen.count;
    seen.key = key;
  });
  return seen;
}

// Which part of a range holds the sum that is missing, parts from the highest down, and what is missing of that part.
struct PartOfSum {
  int part;
  uint64_t missing;
};
// All lanes of a warp, of which lane i has the sum of parts from the highest to kParts - 1 - i, and of that one alone.
__device__ __forceinline__ PartOfSum FindPart(uint64_t inclusive, uint64_t own, uint64_t missing) {
  const unsigned reaching = __ballot_sync(kAllLanes, inclusive >= missing);
  const int lane = __ffs(static_cast<int>(reaching)) - 1;
  return {kParts - 1 - lane, missing - __shfl_sync(kAllLanes, inclusive - own, lane)};
}

// The key of the candidate at which the sum, from the largest key down, reaches the target; or, where that is told
// sooner, a key below it that has the same bits but for the last `ignored_bits`. Leaves the sum of all in shared.sum.
// REQUIRES: there are candidates. Ends with a barrier.
//
// Not inlined, like others here: what a step runs once waits for its code, so that less code is faster.
__device__ __noinline__ inline uint64_t Select(Shared& shared, Order order, Target target, int ignored_bits) {
  const Candidates& candidates = shared.candidates;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int num_columns = NumColumns(candidates);
  KeyRange range = FullRange(candidates, order);
  uint64_t missing = 0;
  for (bool first = true;; first = false) {
    const int shift = max(range.bits - kPartBits, 0);
    Seen seen;
    if (static_cast<int>(threadIdx.x) < num_columns) {
      seen = AddToParts(shared, candidates, order, range, shift, num_columns);
    }
    const int num_seeing = __syncthreads_count(seen.count > 0);
    const bool is_alone = num_seeing == 1 && !__syncthreads_or(seen.count > 1);
    if (is_alone && seen.count > 0) shared.key = seen.key;

    uint64_t sum = 0;
#pragma unroll 4
    for (int i = lane; i < num_columns; i += 32) sum += shared.parts[warp][i];
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);
    if (lane == 0) shared.totals[warp] = sum;
    __syncthreads();

    const uint64_t own = lane < kParts ? shared.totals[kParts - 1 - lane] : 0;
    const uint64_t inclusive = WarpInclusiveSum(own);
    if (first) {
      const uint64_t total = __shfl_sync(kAllLanes, inclusive, 31);
      missing = target.At(total);
      if (threadIdx.x == 0) shared.sum = total;
    }
    const PartOfSum found = FindPart(inclusive, own, missing);
    missing = found.missing;
    range = {range.low + (static_cast<uint64_t>(found.part) << shift), shift};
    if (!is_alone && shift > ignored_bits) continue;
    __syncthreads();
    return is_alone ? shared.key : range.low;
  }
}

// Narrows the candidates to values that are not below the k-th best of all, as far as the blocks' best tokens tell.
// REQUIRES: k >= 1.
__device__ inline void BoundByMaxima(Shared& shared, int k) {
  if (k > shared.candidates.num_blocks) return;
  ListMaxima(shared);
  constexpr int kIgnoredBits = 16;  // a bound need not be sharp
  const uint64_t key = Select(shared, Order::kValue, Target::Count(k), kIgnoredBits);
  Change(shared, [&](Candidates& candidates) { candidates.min_value = FloatOfOrder(static_cast<uint32_t>(key)); });
}

}  // namespace heddle::cuda::sampling
