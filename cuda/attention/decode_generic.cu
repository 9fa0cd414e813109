// Decode attention of any types and head_dim, without tensor cores. Each warp adds up its own chunks, one key or value
// spread over its lanes in pairs of elements; how work is divided and results are joined is as in the other kernels. Of
// an int8 cache keys and values are scaled as they are read.
#include <type_traits>

#include "attention/decode.h"
#include "attention/decode_combine.cuh"
#include "common/launch.h"

namespace heddle::cuda {
namespace {

constexpr int kHeads = 4;  // of a tile

__device__ __forceinline__ float LoadElement(const void* data, HeddleCudaDType dtype, int64_t i) {
  switch (dtype) {
    case kHeddleCudaFloat16:
      return ToFloat(static_cast<const __half*>(data)[i]);
    case kHeddleCudaBFloat16:
      return ToFloat(static_cast<const __nv_bfloat16*>(data)[i]);
    default:
      return static_cast<const float*>(data)[i];
  }
}

__device__ __forceinline__ void StoreElement(void* data, HeddleCudaDType dtype, int64_t i, float value) {
  switch (dtype) {
    case kHeddleCudaFloat16:
      static_cast<__half*>(data)[i] = FromFloat<__half>(value);
      return;
    case kHeddleCudaBFloat16:
      static_cast<__nv_bfloat16*>(data)[i] = FromFloat<__nv_bfloat16>(value);
      return;
    default:
      static_cast<float*>(data)[i] = value;
  }
}

__device__ __forceinline__ float2 LoadPair(const float* from) { return *reinterpret_cast<const float2*>(from); }
template <typename T>
__device__ __forceinline__ float2 LoadPair(const T* from) {
  return UnpackPair<T>(*reinterpret_cast<const uint32_t*>(from));
}

__device__ __forceinline__ float2 LoadPair(const int8_t* from) {
  const char2 pair = *reinterpret_cast<const char2*>(from);
  return make_float2(pair.x, pair.y);
}

// Bytes from the beginning of the keys, or values, to a chunk of a KV head.
template <typename Cache>
__device__ __forceinline__ int64_t ChunkOffset(const AttentionParameters& p, int block, int kv_head, int in_block) {
  const int64_t row = CacheRow(p, block, kv_head, in_block);
  if constexpr (std::is_same_v<Cache, int8_t>) return row / kCacheTileTokens * CacheTileBytes(p.head_dim);
  return row * p.head_dim * static_cast<int64_t>(sizeof(Cache));
}

// Of a token of the chunk that begins at `rows`.
template <typename Cache>
__device__ __forceinline__ float TokenScale(const Cache* rows, int head_dim, int token) {
  if constexpr (!std::is_same_v<Cache, int8_t>) return 1;
  return reinterpret_cast<const float*>(rows + kChunkTokens * head_dim)[token];
}

__device__ __forceinline__ float ExactScore(const ScoreScale& scale, float dot) {
  const float x = dot * scale.factor;
  return scale.cap == 0 ? x : scale.cap * tanhf(x);
}

// The softmax of one warp's chunks of a piece. Lane l has the pairs l, l + 32, .. of a head's elements.
template <typename Cache, int kPairs>
class WarpSums {
 public:
  __device__ void Clear() {
#pragma unroll
    for (int head = 0; head < kHeads; ++head) {
      max_[head] = -INFINITY;
      sum_[head] = 0;
#pragma unroll
      for (int i = 0; i < kPairs; ++i) values_[head][i] = make_float2(0, 0);
    }
  }

  // `q` is [num_heads, head_dim] in shared memory; keys and values begin with those of the chunk's first token.
  __device__ void Attend(const DecodeParameters& p, const float* q, int num_heads, const Cache* keys,
                         const Cache* values, const Chunk& chunk) {
    const int head_dim = p.attention.head_dim;
    for (int token = chunk.begin; token < chunk.end; token += kTokens) {
      float2 k[kTokens][kPairs];
      float2 v[kTokens][kPairs];
      LoadRows(keys, token, chunk.end, head_dim, k);
      LoadRows(values, token, chunk.end, head_dim, v);
#pragma unroll
      for (int head = 0; head < kHeads; ++head) {
        if (head >= num_heads) break;
        float scores[kTokens];
        MultiplyKeys(q + head * head_dim, head_dim, k, scores);
#pragma unroll
        for (int i = 0; i < kTokens; ++i) {
          scores[i] = token + i < chunk.end ? ExactScore(p.attention.score, scores[i]) : -INFINITY;
        }
        AddValues(head, scores, v);
      }
    }
  }

  __device__ void Write(const MergeBuffer& buffer, int num_heads, int head_dim) const {
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int head = 0; head < kHeads; ++head) {
      if (head >= num_heads) break;
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const int element = (lane + i * 32) * 2;
        if (element < head_dim) *reinterpret_cast<float2*>(buffer.Values(warp, head) + element) = values_[head][i];
      }
      if (lane == 0) buffer.Totals(warp, head) = make_float2(max_[head], sum_[head]);
    }
  }

 private:
  static constexpr int kTokens = kPairs <= 4 ? 4 : 2;  // at a time: as many as there are registers for

  // Of the tokens of the chunk that begins at `rows`, from `first` on; those from `end` on are zeros and not read.
  __device__ static void LoadRows(const Cache* rows, int first, int end, int head_dim,
                                  float2 (&pairs)[kTokens][kPairs]) {
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      const int token = first + i;
      const float scale = token < end ? TokenScale(rows, head_dim, token) : 0.0f;
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        const int element = (static_cast<int>(threadIdx.x % 32) + pair * 32) * 2;
        const bool exists = token < end && element < head_dim;
        const float2 x = exists ? LoadPair(rows + token * head_dim + element) : make_float2(0, 0);
        pairs[i][pair] = std::is_same_v<Cache, int8_t> ? make_float2(x.x * scale, x.y * scale) : x;
      }
    }
  }

  __device__ static void MultiplyKeys(const float* q, int head_dim, const float2 (&k)[kTokens][kPairs],
                                      float (&scores)[kTokens]) {
#pragma unroll
    for (int i = 0; i < kTokens; ++i) scores[i] = 0;
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      const int element = (static_cast<int>(threadIdx.x % 32) + pair * 32) * 2;
      if (element >= head_dim) break;
      const float2 x = *reinterpret_cast<const float2*>(q + element);
#pragma unroll
      for (int i = 0; i < kTokens; ++i) scores[i] += x.x * k[i][pair].x + x.y * k[i][pair].y;
    }
#pragma unroll
    for (int i = 0; i < kTokens; ++i) scores[i] = WarpSum(scores[i]);
  }

  __device__ void AddValues(int head, const float (&scores)[kTokens], const float2 (&v)[kTokens][kPairs]) {
    float new_max = max_[head];
#pragma unroll
    for (int i = 0; i < kTokens; ++i) new_max = fmaxf(new_max, scores[i]);
    const float factor = exp2f(max_[head] - new_max);
    max_[head] = new_max;
    sum_[head] *= factor;
#pragma unroll
    for (int pair = 0; pair < kPairs; ++pair) {
      values_[head][pair].x *= factor;
      values_[head][pair].y *= factor;
    }
#pragma unroll
    for (int i = 0; i < kTokens; ++i) {
      const float weight = exp2f(scores[i] - new_max);
      sum_[head] += weight;
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        values_[head][pair].x += weight * v[i][pair].x;
        values_[head][pair].y += weight * v[i][pair].y;
      }
    }
  }

  float max_[kHeads];
  float sum_[kHeads];
  float2 values_[kHeads][kPairs];
};

template <typename Cache, int kPairs>
__global__ void __launch_bounds__(kDecodeThreads, 1) DecodeGenericKernel(const __grid_constant__ DecodeParameters p) {
  extern __shared__ __align__(16) float shared_floats[];
  const AttentionParameters& a = p.attention;
  const MergeBuffer buffer(shared_floats, p.heads_per_tile, a.head_dim);
  float* q = shared_floats + MergeBuffer::Floats(p.heads_per_tile, a.head_dim);

  AllowNext();
  WaitForPrevious();
  const WorkLine line(p, reinterpret_cast<int*>(q + p.heads_per_tile * a.head_dim));
  const int block = blockIdx.x;
  if (block >= line.num_blocks()) return;
  const int end = line.Begin(block + 1);

  WarpSums<Cache, kPairs> sums;
  Piece piece = line.PieceAt(line.Begin(block), end);
  while (true) {
    const HeadTile heads(p, piece.tile);
    const Context context(line.Length(piece.seq), a.sliding_window);
    const int32_t* blocks = a.block_table + piece.seq * a.block_table_stride;
    const int64_t first_element = static_cast<int64_t>(heads.first_head) * a.head_dim;
    for (int i = threadIdx.x; i < heads.num_heads * a.head_dim; i += kDecodeThreads) {
      q[i] = LoadElement(a.q, p.dtype, piece.seq * a.q_stride + first_element + i);
    }
    __syncthreads();
    sums.Clear();
    for (int unit = piece.begin; unit < piece.end; ++unit) {
      const Chunk chunk(context, unit, threadIdx.x / 32);
      if (chunk.is_empty()) continue;
      const int in_block = chunk.position & ((1 << a.block_shift) - 1);
      const int64_t offset = ChunkOffset<Cache>(a, blocks[chunk.position >> a.block_shift], heads.kv_head, in_block);
      sums.Attend(p, q, heads.num_heads, reinterpret_cast<const Cache*>(static_cast<const char*>(a.keys) + offset),
                  reinterpret_cast<const Cache*>(static_cast<const char*>(a.values) + offset), chunk);
    }
    sums.Write(buffer, heads.num_heads, a.head_dim);
    FinishPiece<2>(p, line, piece, heads.num_heads, a.head_dim, buffer,
                   [&](int head, int element, const float(&values)[2]) {
                     const int64_t to = piece.seq * a.out_stride + first_element + head * a.head_dim + element;
                     StoreElement(a.out, p.dtype, to, values[0]);
                     StoreElement(a.out, p.dtype, to + 1, values[1]);
                   });
    if (piece.first_unit + piece.end == end) return;
    piece = line.PieceAfter(piece, end);
    __syncthreads();
  }
}

template <typename Cache>
DecodeKernel MakeGenericKernel(int head_dim) {
  const auto function = head_dim <= 128   ? DecodeGenericKernel<Cache, 2>
                        : head_dim <= 256 ? DecodeGenericKernel<Cache, 4>
                                          : DecodeGenericKernel<Cache, 8>;
  return {.function = function,
          .max_heads_per_tile = kHeads,
          .query_bytes_per_head = head_dim * static_cast<int>(sizeof(float))};
}

}  // namespace

DecodeKernel GenericDecodeKernel(HeddleCudaDType cache_dtype, int head_dim) {
  DecodeKernel kernel;
  DispatchCache(cache_dtype, [&]<typename Cache>() { kernel = MakeGenericKernel<Cache>(head_dim); });
  return kernel;
}

}  // namespace heddle::cuda
