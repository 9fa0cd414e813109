// Finding the k-th best, the cut of top-p and the token of a draw: all three are the candidate at which a sum over the
// candidates, in some order, reaches a target. Nothing is sorted. The range of keys that holds that candidate is cut
// into 16 parts, over and over, until it is alone. Every thread has sums of its own for the parts, so there are no atomic
// additions, equal candidates cost no more than different ones, and the sums are of integers: the order of threads and
// of candidates does not show.
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

// Adds the candidates of a range to the calling thread's part sums.
__device__ __forceinline__ Seen AddToParts(Shared& shared, const Candidates& candidates, Order order, KeyRange range,
                                           int shift) {
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
  ForEachCandidate(shared, candidates, blocks, [&](float value, int id) {
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

// The key of the candidate at which the sum, from the largest key down, reaches the target. Leaves the sum of all in
// shared.sum. REQUIRES: there are candidates. Ends with a barrier.
//
// Not inlined, since code that a step runs once comes from memory.
__device__ __noinline__ inline uint64_t Select(Shared& shared, Order order, Target target) {
  const Candidates candidates = shared.candidates;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  KeyRange range = FullRange(candidates, order);
  uint64_t missing = 0;
  for (bool first = true;; first = false) {
    const int shift = max(range.bits - kPartBits, 0);
#pragma unroll
    for (int part = 0; part < kParts; ++part) shared.parts[part][threadIdx.x] = 0;
    const Seen seen = AddToParts(shared, candidates, order, range, shift);
    if (seen.count > 0) shared.key = seen.key;
    const int num_seeing = __syncthreads_count(seen.count > 0);
    const bool is_alone = num_seeing == 1 && !__syncthreads_or(seen.count > 1);

    uint64_t sum = 0;
#pragma unroll 4
    for (int i = 0; i < kThreads; i += 32) sum += shared.parts[warp][i + lane];
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);
    if (lane == 0) shared.totals[warp] = sum;
    const uint64_t key = shared.key;
    __syncthreads();

    if (first) {
      uint64_t total = 0;
#pragma unroll 4
      for (int part = 0; part < kParts; ++part) total += shared.totals[part];
      missing = target.At(total);
      if (threadIdx.x == 0) shared.sum = total;
    }
    int part = kParts - 1;
#pragma unroll 1
    for (; part > 0 && shared.totals[part] < missing; --part) missing -= shared.totals[part];
    range = {range.low + (static_cast<uint64_t>(part) << shift), shift};
    if (!is_alone && shift > 0) continue;
    __syncthreads();
    return is_alone ? key : range.low;
  }
}

// Narrows the candidates to values that are not below the k-th best of all, as far as the blocks' best tokens tell.
// REQUIRES: k >= 1.
__device__ inline void BoundByMaxima(Shared& shared, int k) {
  if (k > shared.candidates.num_blocks) return;
  ListMaxima(shared);
  const uint64_t key = Select(shared, Order::kValue, Target::Count(k));
  Change(shared, [&](Candidates& candidates) { candidates.min_value = FloatOfOrder(static_cast<uint32_t>(key)); });
}

}  // namespace heddle::cuda::sampling
