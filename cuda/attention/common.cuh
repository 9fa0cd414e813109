// What the attention kernels share: the op as a kernel sees it, which keys a token sees, where a block of the cache
// lies, scores, and pairs of 16-bit floats.
#pragma once

#include <cstdint>

#include "common/error.h"
#include "common/int8_cache.cuh"
#include "common/mma.cuh"
#include "common/numeric.cuh"
#include "common/shared_memory.cuh"

namespace heddle::cuda {

inline constexpr float kLog2E = 1.4426950408889634f;

// From the dot product of a query and a key to a score in powers of two: exp(score) == exp2(Score(dot)).
struct ScoreScale {
  float factor = 0;  // of the dot product
  float cap = 0;     // zero: no soft cap
};

inline ScoreScale MakeScoreScale(float scale, float soft_cap) {
  if (soft_cap == 0) return {scale * kLog2E, 0};
  return {scale / soft_cap, soft_cap * kLog2E};
}

struct AttentionParameters {
  const void* q;
  const void* keys;
  const void* values;
  void* out;
  int64_t q_stride;
  int64_t out_stride;
  const int32_t* query_start_loc;
  const int32_t* seq_lens;
  const int32_t* block_table;
  int64_t block_table_stride;
  int32_t num_seqs;
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t group_size;  // query heads of a KV head
  int32_t head_dim;
  int32_t block_shift;  // block_size == 1 << block_shift
  int32_t sliding_window;
  ScoreScale score;
};

inline AttentionParameters MakeAttentionParameters(const HeddleCudaPagedAttention& op) {
  AttentionParameters p{};
  p.q = op.q.data;
  p.keys = op.cache.keys;
  p.values = op.cache.values;
  p.out = op.out.data;
  p.q_stride = op.q.stride;
  p.out_stride = op.out.stride;
  p.query_start_loc = op.query_start_loc;
  p.seq_lens = op.seq_lens;
  p.block_table = op.block_table;
  p.block_table_stride = op.block_table_stride;
  p.num_seqs = op.num_seqs;
  p.num_heads = op.num_heads;
  p.num_kv_heads = op.cache.num_kv_heads;
  p.group_size = op.num_heads / op.cache.num_kv_heads;
  p.head_dim = op.cache.head_dim;
  while (1 << p.block_shift < op.cache.block_size) ++p.block_shift;
  p.sliding_window = op.sliding_window;
  p.score = MakeScoreScale(op.scale, op.soft_cap);
  return p;
}

// The first key that the token at `position` sees; the last is its own.
__host__ __device__ inline int KeyBegin(int position, int sliding_window) {
  return sliding_window > 0 && position >= sliding_window ? position - sliding_window + 1 : 0;
}

// Where a head of the token in place `in_block` of a block lies among all of the keys, or values.
__device__ __forceinline__ int64_t CacheRow(const AttentionParameters& p, int block, int kv_head, int in_block) {
  return ((static_cast<int64_t>(block) * p.num_kv_heads + kv_head) << p.block_shift) + in_block;
}

// Calls body.operator()<C>() for the type of a cache's elements.
template <typename Body>
void DispatchCache(HeddleCudaDType dtype, const Body& body) {
  if (dtype == kHeddleCudaInt8) return body.template operator()<int8_t>();
  DispatchFloat(dtype, body);
}

// To some 1e-7 of 1, which is enough for 16-bit caches, at a fraction of what tanhf costs.
__device__ __forceinline__ float FastTanh(float x) { return 1.0f - __fdividef(2.0f, 1.0f + exp2f(2.0f * kLog2E * x)); }

__device__ __forceinline__ float Score(const ScoreScale& scale, float dot) {
  const float x = dot * scale.factor;
  return scale.cap == 0 ? x : scale.cap * FastTanh(x);
}

// Two floats rounded into one register, `low` in its lower half.
template <typename T>
__device__ __forceinline__ uint32_t PackPair(float low, float high);
template <>
__device__ __forceinline__ uint32_t PackPair<__half>(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
template <>
__device__ __forceinline__ uint32_t PackPair<__nv_bfloat16>(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// The pair as floats again.
template <typename T>
__device__ __forceinline__ float2 UnpackPair(uint32_t packed);
template <>
__device__ __forceinline__ float2 UnpackPair<__half>(uint32_t packed) {
  return __half22float2(*reinterpret_cast<const __half2*>(&packed));
}
template <>
__device__ __forceinline__ float2 UnpackPair<__nv_bfloat16>(uint32_t packed) {
  return make_float2(__uint_as_float(packed << 16), __uint_as_float(packed & 0xffff0000u));
}

}  // namespace heddle::cuda
