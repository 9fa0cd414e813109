// From the softmax that each warp has of its own chunks to the output: the warps of a block are joined in shared
// memory; blocks that have one segment in pieces leave partial results, which the last of them to come joins. Every sum
// has a fixed order, so the same launch gives the same bits.
#pragma once

#include <type_traits>

#include "attention/decode_split.cuh"

namespace heddle::cuda {

template <int kVector>
using FloatVector = std::conditional_t<kVector == 4, float4, float2>;

// kVector elements of one head's softmax over some keys: weights are relative to the largest score.
template <int kVector>
struct WeightedSum {
  float max = -INFINITY;
  float sum = 0;
  alignas(4 * kVector) float values[kVector] = {};

  // At least one of them has seen a key.
  template <int kCount>
  __device__ void Add(const WeightedSum (&others)[kCount]) {
    float new_max = max;
#pragma unroll
    for (int i = 0; i < kCount; ++i) new_max = fmaxf(new_max, others[i].max);
    const float scale = exp2f(max - new_max);
    sum *= scale;
#pragma unroll
    for (int j = 0; j < kVector; ++j) values[j] *= scale;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float weight = exp2f(others[i].max - new_max);
      sum += others[i].sum * weight;
#pragma unroll
      for (int j = 0; j < kVector; ++j) values[j] += others[i].values[j] * weight;
    }
    max = new_max;
  }
};

// In shared memory: what each warp has of the heads of a piece.
struct MergeBuffer {
  static constexpr int kPadding = 4;

  __host__ __device__ static constexpr int Floats(int heads_per_tile, int head_dim) {
    return kDecodeWarps * heads_per_tile * (head_dim + kPadding + 2);
  }

  __device__ MergeBuffer(float* shared, int heads_per_tile, int head_dim)
      : values(shared),
        totals(reinterpret_cast<float2*>(shared + kDecodeWarps * heads_per_tile * (head_dim + kPadding))),
        heads(heads_per_tile),
        pitch(head_dim + kPadding) {}

  __device__ float* Values(int warp, int head) const { return values + (warp * heads + head) * pitch; }
  __device__ float2& Totals(int warp, int head) const { return totals[warp * heads + head]; }  // maximum, sum

  float* values;
  float2* totals;
  int heads;
  int pitch;  // spreads what a warp writes at once over the banks
};

template <int kVector>
__device__ __forceinline__ WeightedSum<kVector> JoinWarps(const MergeBuffer& buffer, int head, int element) {
  WeightedSum<kVector> parts[kDecodeWarps];
#pragma unroll
  for (int warp = 0; warp < kDecodeWarps; ++warp) {
    const float2 totals = buffer.Totals(warp, head);
    parts[warp].max = totals.x;
    parts[warp].sum = totals.y;
    *reinterpret_cast<FloatVector<kVector>*>(parts[warp].values) =
        *reinterpret_cast<const FloatVector<kVector>*>(buffer.Values(warp, head) + element);
  }
  WeightedSum<kVector> total;
  total.Add(parts);
  return total;
}

// One of the partial results in the stream's scratch memory.
struct Partial {
  __device__ Partial(const DecodeParameters& p, int slot)
      : values(p.partials + static_cast<int64_t>(slot) * PartialFloats(p.heads_per_tile, p.attention.head_dim)),
        totals(reinterpret_cast<float2*>(values + p.heads_per_tile * p.attention.head_dim)),
        head_dim(p.attention.head_dim) {}

  template <int kVector>
  __device__ void Store(int head, int element, const WeightedSum<kVector>& sum) const {
    *reinterpret_cast<FloatVector<kVector>*>(values + head * head_dim + element) =
        *reinterpret_cast<const FloatVector<kVector>*>(sum.values);
    if (element == 0) totals[head] = make_float2(sum.max, sum.sum);
  }

  // Other blocks wrote it meanwhile, so it is read past L1.
  template <int kVector>
  __device__ WeightedSum<kVector> Load(int head, int element) const {
    WeightedSum<kVector> sum;
    const float2 max_and_sum = __ldcg(totals + head);
    sum.max = max_and_sum.x;
    sum.sum = max_and_sum.y;
    *reinterpret_cast<FloatVector<kVector>*>(sum.values) =
        __ldcg(reinterpret_cast<const FloatVector<kVector>*>(values + head * head_dim + element));
    return sum;
  }

  float* values;   // [heads_per_tile, head_dim]
  float2* totals;  // [heads_per_tile]: maximum, sum
  int head_dim;
};

// The blocks that have a segment between them. Only the first of them has a piece that its stretch ends with.
struct Sharers {
  __device__ Sharers(const WorkLine& line, const Piece& piece)
      : first(line.BlockOf(piece.first_unit)), last(line.BlockOf(piece.first_unit + piece.num_units - 1)) {}

  __device__ int Slot(int block) const { return block * kPartialsPerBlock + (block == first ? 1 : 0); }

  int first;
  int last;
};

// Whether this block is the last one to come here. What all threads of the others wrote before is visible then.
__device__ __forceinline__ bool IsLastToCome(uint32_t* counter, int num_blocks) {
  __shared__ bool is_last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    is_last = atomicAdd(counter, 1u) == static_cast<uint32_t>(num_blocks - 1);
    if (is_last) *counter = 0;
    __threadfence();
  }
  __syncthreads();
  return is_last;
}

template <int kVector>
__device__ __forceinline__ WeightedSum<kVector> JoinPartials(const DecodeParameters& p, const Sharers& sharers,
                                                             int head, int element) {
  constexpr int kBatch = 16;  // loads on their way together
  WeightedSum<kVector> total;
  for (int block = sharers.first; block <= sharers.last; block += kBatch) {
    WeightedSum<kVector> parts[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (block + i <= sharers.last) {
        parts[i] = Partial(p, sharers.Slot(block + i)).template Load<kVector>(head, element);
      }
    }
    total.Add(parts);
  }
  return total;
}

// Calls store(head, element, values) with the result of `join(head, element)` for every kVector elements of the heads.
template <int kVector, typename Join, typename Store>
__device__ __forceinline__ void StoreHeads(int num_heads, int head_dim, const Join& join, const Store& store) {
  for (int i = threadIdx.x; i < num_heads * (head_dim / kVector); i += kDecodeThreads) {
    const int head = i / (head_dim / kVector);
    const int element = i % (head_dim / kVector) * kVector;
    WeightedSum<kVector> total = join(head, element);
    const float factor = 1.0f / total.sum;
#pragma unroll
    for (int j = 0; j < kVector; ++j) total.values[j] *= factor;
    store(head, element, total.values);
  }
}

// Called by all threads when the warps have written all of `piece` to the buffer; after the next barrier the buffer may
// be written again. `store` writes to the output.
template <int kVector, typename Store>
__device__ __forceinline__ void FinishPiece(const DecodeParameters& p, const WorkLine& line, const Piece& piece,
                                            int num_heads, int head_dim, const MergeBuffer& buffer,
                                            const Store& store) {
  __syncthreads();
  const auto join_warps = [&](int head, int element) { return JoinWarps<kVector>(buffer, head, element); };
  if (piece.is_whole()) return StoreHeads<kVector>(num_heads, head_dim, join_warps, store);

  const Sharers sharers(line, piece);
  const Partial own(p, sharers.Slot(blockIdx.x));
  for (int i = threadIdx.x; i < num_heads * (head_dim / kVector); i += kDecodeThreads) {
    const int head = i / (head_dim / kVector);
    const int element = i % (head_dim / kVector) * kVector;
    own.Store(head, element, join_warps(head, element));
  }
  // No other segment in pieces begins in the same block, so the block's counter is the segment's.
  if (!IsLastToCome(p.counters + sharers.first, sharers.last - sharers.first + 1)) return;
  StoreHeads<kVector>(
      num_heads, head_dim, [&](int head, int element) { return JoinPartials<kVector>(p, sharers, head, element); },
      store);
}

}  // namespace heddle::cuda
