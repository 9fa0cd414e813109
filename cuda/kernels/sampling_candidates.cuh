// The tokens of a row that are still in question: in the row, or in a list once they are few. Shared memory of the
// thread block that has the row.
#pragma once

#include "kernels/sampling_row.cuh"

namespace heddle::cuda::sampling {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kPartBits = 4;
constexpr int kParts = 1 << kPartBits;
constexpr int kListCapacity = 4096;
constexpr float kValueMargin = 1e-3f;  // more than weights are off
static_assert(kParts == kWarps, "a warp adds up one part");
static_assert(kListCapacity >= kMaxBlocks, "the blocks' largest logits fit the list");

// The value of a token is (logit - max) / temperature: what the CPU takes the exponential of. With max 0 and
// temperature 1 it is the logit.
struct Candidates {
  RowView view;
  const BlockStatistics* statistics;
  int num_blocks;
  int id_bits;
  bool raw;  // of the model's own logits
  float max;
  float temperature;
  float max_value;  // the largest there is
  FixedPoint fixed_point;

  // Who is left: values from here on and, unless it is zero, weight keys from here on.
  float min_value;
  uint64_t min_weight_key;
  int list_size;        // entries of the list that holds them; negative: they are in the row,
  int num_blocks_left;  // in this many blocks

  __device__ uint64_t IdMask() const { return (uint64_t{1} << id_bits) - 1; }
  // Lower ids are better.
  __device__ uint64_t IdKey(int id) const { return IdMask() - static_cast<uint64_t>(id); }
  __device__ int IdOfKey(uint64_t key) const { return static_cast<int>(IdMask() - (key & IdMask())); }
  __device__ uint64_t ValueKey(float value, int id) const { return uint64_t{OrderOf(value)} << id_bits | IdKey(id); }
  __device__ uint64_t WeightKey(float weight, int id) const {
    return static_cast<uint64_t>(__float_as_int(weight)) << id_bits | IdKey(id);
  }
  __device__ float WeightOfKey(uint64_t key) const { return __int_as_float(static_cast<int>(key >> id_bits)); }

  __device__ float ValueOf(float logit) const { return __fdiv_rn(__fsub_rn(logit, max), temperature); }
  __device__ float MaxValueOf(int block) const {
    return ValueOf(raw ? statistics[block].raw_max : statistics[block].max);
  }
  __device__ bool Contains(float value, int id) const {
    if (value < min_value) return false;
    return min_weight_key == 0 || WeightKey(WeightOf(value), id) >= min_weight_key;
  }
};

// What reading a row's blocks needs.
struct RowScan {
  uint16_t blocks[kMaxBlocks];  // those that may hold candidates, in any order
  float logits[kWarps][kBlockSize];
};

// Little enough for any device from compute capability 8.0 on.
struct Shared {
  union {
    uint64_t parts[kParts][kThreads];  // see sampling_select.cuh
    RowScan gather_scan;               // while candidates are gathered
  };
  union {
    struct {
      float values[kListCapacity];
      int32_t ids[kListCapacity];
    } list;
    RowScan scan;  // while there is no list
  };
  Candidates candidates;
  uint64_t totals[kParts];
  uint64_t partial[32];
  uint64_t best[HEDDLE_CUDA_MAX_LOGPROBS];
  const int32_t* best_ids;  // of the row's blocks: see Scratch
  double random;            // of the draw
  uint64_t key;
  uint64_t sum;
  int32_t count;
  int32_t token;
};
static_assert(sizeof(Shared) <= 99 * 1024);

// Changes the candidates, once for all threads.
template <typename Body>
__device__ __forceinline__ void Change(Shared& shared, const Body& body) {
  __syncthreads();
  if (threadIdx.x == 0) body(shared.candidates);
  __syncthreads();
}

// The largest and the smallest of all threads' numbers, and their sum: the same in every thread. `partial` holds 32
// numbers.
__device__ __forceinline__ float MaxOverThreads(float x, uint64_t* partial) {
  const uint32_t order = __reduce_max_sync(kAllLanes, OrderOf(x));
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = order;
  __syncthreads();
  return FloatOfOrder(__reduce_max_sync(kAllLanes, static_cast<uint32_t>(partial[threadIdx.x % kWarps])));
}

__device__ __forceinline__ unsigned MinOverThreads(unsigned x, uint64_t* partial) {
  x = __reduce_min_sync(kAllLanes, x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  return __reduce_min_sync(kAllLanes, static_cast<unsigned>(partial[threadIdx.x % kWarps]));
}

// Sum over the lanes up to this one.
__device__ __forceinline__ uint64_t WarpInclusiveSum(uint64_t x) {
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const uint64_t before = __shfl_up_sync(kAllLanes, x, offset);
    if (static_cast<int>(threadIdx.x) % 32 >= offset) x += before;
  }
  return x;
}

// In an order of its own, which is always the same.
template <typename T>
__device__ __forceinline__ T SumOverThreads(T x, uint64_t* partial) {
  T* parts = reinterpret_cast<T*>(partial);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  T sum = 0;
#pragma unroll 1
  for (int warp = 0; warp < kWarps; ++warp) sum += parts[warp];
  return sum;
}

// Finds the blocks that may hold candidates.
__device__ __noinline__ inline void FindBlocks(Shared& shared, RowScan& scan) {
  Change(shared, [](Candidates& candidates) {
    candidates.list_size = -1;
    candidates.num_blocks_left = 0;
  });
  const Candidates& candidates = shared.candidates;
#pragma unroll 1
  for (int block = threadIdx.x; block < candidates.num_blocks; block += kThreads) {
    if (candidates.MaxValueOf(block) < candidates.min_value) continue;
    scan.blocks[atomicAdd(&shared.candidates.num_blocks_left, 1)] = static_cast<uint16_t>(block);
  }
  __syncthreads();
}

// Blocks begin to end - 1.
struct BlockRange {
  int begin;
  int end;

  __device__ bool Holds(int block) const { return block >= begin && block < end; }
};

// Calls visit(value, id) for every token of the blocks that FindBlocks found and `range` holds, while go_on() holds.
template <typename Visit, typename GoOn>
__device__ __forceinline__ void ForEachToken(RowScan& scan, const Candidates& candidates, BlockRange range,
                                             const Visit& visit, const GoOn& go_on) {
  const int lane = threadIdx.x % 32;
  float* logits = scan.logits[threadIdx.x / 32];
#pragma unroll 1
  for (int i = threadIdx.x / 32; i < candidates.num_blocks_left && go_on(); i += kWarps) {
    const int block = scan.blocks[i];
    if (!range.Holds(block)) continue;
    float x[kPerLane];
    candidates.view.Load(block, lane, x);
    // By way of shared memory, where a lane reads only what it wrote, so that the visits can be a loop: unrolled they
    // are more code than is worth fetching for a few blocks.
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) logits[j * 32 + lane] = x[j];
#pragma unroll 1
    for (int j = 0; j < kPerLane; ++j) {
      const int id = TokenOf(block, lane, j);
      if (id < candidates.view.vocab_size) visit(candidates.ValueOf(logits[j * 32 + lane]), id);
    }
  }
}

// The same for every candidate, and maybe others: of the row, tokens that share a block with some, and of the list,
// tokens of blocks outside `range`. The first `num_threads` share the list.
template <typename Visit>
__device__ __forceinline__ void ForEachCandidate(Shared& shared, const Candidates& candidates, BlockRange range,
                                                 int num_threads, const Visit& visit) {
  if (candidates.list_size < 0) return ForEachToken(shared.scan, candidates, range, visit, [] { return true; });
#pragma unroll 1
  for (int i = threadIdx.x; i < candidates.list_size; i += num_threads) {
    visit(shared.list.values[i], shared.list.ids[i]);
  }
}

// Puts the candidates into the list, or leaves them in the row where they are too many.
__device__ __noinline__ inline void Gather(Shared& shared) {
  FindBlocks(shared, shared.gather_scan);
  if (threadIdx.x == 0) shared.count = 0;
  __syncthreads();
  const Candidates candidates = shared.candidates;
  volatile int32_t* count = &shared.count;
  ForEachToken(
      shared.gather_scan, candidates, {0, candidates.num_blocks},
      [&](float value, int id) {
        if (!candidates.Contains(value, id)) return;
        const int place = atomicAdd(&shared.count, 1);
        if (place >= kListCapacity) return;
        shared.list.values[place] = value;
        shared.list.ids[place] = id;
      },
      [&] { return *count <= kListCapacity; });
  __syncthreads();
  if (shared.count > kListCapacity) return FindBlocks(shared, shared.scan);
  Change(shared, [&](Candidates& changed) { changed.list_size = shared.count; });
}

// Puts each block's largest value into the list, with the block's number for an id. The k-th best of these is no better
// than the k-th best of all.
__device__ inline void ListMaxima(Shared& shared) {
#pragma unroll 1
  for (int block = threadIdx.x; block < shared.candidates.num_blocks; block += kThreads) {
    shared.list.values[block] = shared.candidates.MaxValueOf(block);
    shared.list.ids[block] = block;
  }
  Change(shared, [](Candidates& candidates) { candidates.list_size = candidates.num_blocks; });
}

}  // namespace heddle::cuda::sampling
