#include <bit>

#include "common/ops.h"
#include "common/rounding.h"
#include "kernels/rotate_and_store.cuh"

namespace heddle::cuda {
namespace {

// kSize pairs of a head, query heads first, then key heads, which go into the cache as well.
template <typename T, typename TCache, int kSize>
__device__ __forceinline__ void RotateHeads(const RotateArguments& a, int head, int column) {
  const bool is_key = head >= a.num_heads;
  if (is_key) head -= a.num_heads;
  T* const rows = static_cast<T*>(is_key ? a.k : a.q) + int64_t{head} * a.head_dim + column;
  const int64_t stride = is_key ? a.k_stride : a.q_stride;
  ForMyTokens(
      a, [&](int64_t token) { return Rotation<kSize>(a, token, column); },
      [&](int64_t token, const Rotation<kSize>& rotation) {
        if (!IsSlot(a, rotation.slot)) return;
        float first[kSize];
        float second[kSize];
        RotatePairs(rows + token * stride, a.half, rotation, first, second);
        if (!is_key) return;
        TCache* const key = static_cast<TCache*>(a.keys) + CacheRow(a, rotation.slot, head) * a.head_dim + column;
        StoreFloats(first, key);
        StoreFloats(second, key + a.half);
      });
}

// kSize elements of a head that go into the cache as they are.
template <typename T, typename TCache, int kSize>
__device__ __forceinline__ void StorePlain(const RotateArguments& a, const void* from, int64_t stride, void* cache,
                                           int head, int column) {
  ForMyTokens(
      a, [&](int64_t token) { return a.slot_mapping[token]; },
      [&](int64_t token, int64_t slot) {
        float x[kSize];
        LoadFloats(static_cast<const T*>(from) + token * stride + int64_t{head} * a.head_dim + column, x);
        if (IsSlot(a, slot))
          StoreFloats(x, static_cast<TCache*>(cache) + CacheRow(a, slot, head) * a.head_dim + column);
      });
}

// Units of a token's work, each for one thread: pairs of vectors that are rotated, then vectors of key heads beyond
// those, then vectors of value heads.
template <int kSize>
struct Units {
  int rotated_per_head;
  int plain_per_head;
  int values_per_head;
  int num_rotated;
  int num_plain;
  int num_values;

  __host__ __device__ explicit Units(const RotateArguments& a)
      : rotated_per_head(a.half / kSize),
        plain_per_head((a.head_dim - 2 * a.half) / kSize),
        values_per_head(a.head_dim / kSize),
        num_rotated((a.num_heads + a.num_kv_heads) * rotated_per_head),
        num_plain(a.num_kv_heads * plain_per_head),
        num_values(a.num_kv_heads * values_per_head) {}
};

template <typename T, typename TCache, int kSize>
__global__ void __launch_bounds__(kRotateThreads) RotateAndStoreKernel(const RotateArguments a) {
  AllowNext();
  const Units<kSize> units(a);
  int unit = static_cast<int>(blockIdx.x * kRotateThreads + threadIdx.x);
  if (unit < units.num_rotated) {
    return RotateHeads<T, TCache, kSize>(a, unit / units.rotated_per_head, unit % units.rotated_per_head * kSize);
  }
  unit -= units.num_rotated;
  if (unit < units.num_plain) {
    return StorePlain<T, TCache, kSize>(a, a.k, a.k_stride, a.keys, unit / units.plain_per_head,
                                        2 * a.half + unit % units.plain_per_head * kSize);
  }
  unit -= units.num_plain;
  if (unit < units.num_values) {
    StorePlain<T, TCache, kSize>(a, a.v, a.v_stride, a.values, unit / units.values_per_head,
                                 unit % units.values_per_head * kSize);
  }
}

void CheckCache(const HeddleCudaKVCache& cache) {
  Require(cache.keys != nullptr && cache.values != nullptr, "rotate_and_store: the cache is null");
  Require(IsAligned(cache.keys) && IsAligned(cache.values), "rotate_and_store: the cache does not begin on 16 bytes");
  Require(cache.num_blocks >= 0, "rotate_and_store: num_blocks is negative");
  Require(
      cache.block_size >= 16 && cache.block_size <= 128 && std::has_single_bit(static_cast<unsigned>(cache.block_size)),
      "rotate_and_store: the cache's block_size is not 16, 32, 64 or 128");
  Require(cache.head_dim > 0 && cache.head_dim % 2 == 0 && cache.head_dim <= 512,
          "rotate_and_store: head_dim is not an even number up to 512");
  Require(cache.num_kv_heads > 0, "rotate_and_store: num_kv_heads is not positive");
}

void CheckRotateAndStore(const HeddleCudaRotateAndStore& op) {
  CheckCache(op.cache);
  CheckMatrix(op.q, "rotate_and_store: q");
  CheckMatrix(op.k, "rotate_and_store: k");
  CheckMatrix(op.v, "rotate_and_store: v");
  Require(op.k.num_rows == op.q.num_rows && op.v.num_rows == op.q.num_rows,
          "rotate_and_store: q, k and v differ in rows");
  Require(op.k.dtype == op.q.dtype && op.v.dtype == op.q.dtype, "rotate_and_store: q, k and v differ in dtype");
  Require(op.q.size % op.cache.head_dim == 0 && op.q.size <= INT32_MAX / 2,
          "rotate_and_store: rows of q are not whole heads");
  const int64_t kv_size = int64_t{op.cache.num_kv_heads} * op.cache.head_dim;
  Require(op.k.size == kv_size && op.v.size == kv_size && kv_size <= INT32_MAX / 4,
          "rotate_and_store: rows of k or v are not num_kv_heads heads");
  Require(op.rotary_dim >= 0 && op.rotary_dim % 2 == 0 && op.rotary_dim <= op.cache.head_dim,
          "rotate_and_store: rotary_dim is not an even number up to head_dim");
}

bool TakesVectors(const HeddleCudaRotateAndStore& op) {
  return op.cache.head_dim % kVectorSize == 0 && op.rotary_dim % (2 * kVectorSize) == 0 && HasAlignedRows(op.q) &&
         HasAlignedRows(op.k) && HasAlignedRows(op.v) && IsAligned(op.cos_sin);
}

RotateArguments ArgumentsOf(const HeddleCudaRotateAndStore& op) {
  return {.positions = op.positions,
          .cos_sin = op.cos_sin,
          .slot_mapping = op.slot_mapping,
          .q = op.q.data,
          .k = op.k.data,
          .v = op.v.data,
          .q_stride = op.q.stride,
          .k_stride = op.k.stride,
          .v_stride = op.v.stride,
          .keys = op.cache.keys,
          .values = op.cache.values,
          .num_tokens = op.q.num_rows,
          .num_slots = op.cache.num_blocks * op.cache.block_size,
          .max_positions = op.max_positions,
          .num_heads = static_cast<int32_t>(op.q.size / op.cache.head_dim),
          .num_kv_heads = op.cache.num_kv_heads,
          .head_dim = op.cache.head_dim,
          .half = op.rotary_dim / 2,
          .block_shift = std::countr_zero(static_cast<unsigned>(op.cache.block_size))};
}

}  // namespace

void RotateAndStore(HeddleCudaStream& stream, const HeddleCudaRotateAndStore& op) {
  CheckRotateAndStore(op);
  if (op.k.num_rows == 0) return;
  Require(op.slot_mapping != nullptr, "rotate_and_store: slot_mapping is null");
  Require(op.rotary_dim == 0 || (op.positions != nullptr && op.cos_sin != nullptr),
          "rotate_and_store: positions or cos_sin is null");
  Require(op.rotary_dim == 0 || op.max_positions > 0, "rotate_and_store: cos_sin has no positions");
  const RotateArguments arguments = ArgumentsOf(op);
  if (op.cache.dtype == kHeddleCudaInt8) {
    return RotateAndStoreInt8(stream, op.q.dtype, TakesVectors(op), arguments);
  }
  DispatchFloat(op.q.dtype, [&]<typename T>() {
    DispatchFloat(op.cache.dtype, [&]<typename TCache>() {
      DispatchVectors(TakesVectors(op), [&]<int kSize>() {
        const Units<kSize> units(arguments);
        const int num_units = units.num_rotated + units.num_plain + units.num_values;
        Launch(stream, RotateAndStoreKernel<T, TCache, kSize>,
               RotateGrid(arguments, static_cast<int>(CeilDiv(num_units, kRotateThreads))), dim3(kRotateThreads), 0,
               arguments);
      });
    });
  });
}

}  // namespace heddle::cuda
