#include <bit>

#include "common/launch.h"
#include "common/ops.h"
#include "kernels/rows.cuh"

namespace heddle::cuda {
namespace {

constexpr int kThreads = 128;

struct RotateArguments {
  const int32_t* positions;
  const float* cos_sin;
  const int64_t* slot_mapping;
  void* q;
  void* k;
  const void* v;
  int64_t q_stride;
  int64_t k_stride;
  int64_t v_stride;
  void* keys;
  void* values;
  int64_t num_tokens;
  int64_t num_slots;
  int32_t max_positions;
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim;
  int32_t half;         // of the rotated elements of a head
  int32_t block_shift;  // binary logarithm of the cache's block size
};

// First element of a slot's head in the keys or values of the cache.
__device__ __forceinline__ int64_t CacheOffset(const RotateArguments& a, int64_t slot, int head) {
  const int64_t block = slot >> a.block_shift;
  const int64_t offset = slot - (block << a.block_shift);
  return ((((block * a.num_kv_heads + head) << a.block_shift) + offset)) * a.head_dim;
}

// Whether there is such a slot; where not, the token is padding.
__device__ __forceinline__ bool IsSlot(const RotateArguments& a, int64_t slot) {
  return slot >= 0 && slot < a.num_slots;
}

// Calls body(token, prepare(token)) for the calling thread's tokens, of which there is one at least: what `prepare`
// reads for the first of them is what no op writes, and comes before the kernel ahead has ended.
template <typename Prepare, typename Body>
__device__ __forceinline__ void ForMyTokens(const RotateArguments& a, const Prepare& prepare, const Body& body) {
  int64_t token = blockIdx.y;
  auto prepared = prepare(token);
  WaitForPrevious();
  for (;;) {
    body(token, prepared);
    token += gridDim.y;
    if (token >= a.num_tokens) return;
    prepared = prepare(token);
  }
}

// A token's slot, and the angles of kSize pairs of its elements.
template <int kSize>
struct Rotation {
  __device__ __forceinline__ Rotation(const RotateArguments& a, int64_t token, int column)
      : slot(a.slot_mapping[token]) {
    if (!IsSlot(a, slot)) return;
    // As unsigned, so that a negative position is beyond the table too.
    const auto position = min(static_cast<uint32_t>(a.positions[token]), static_cast<uint32_t>(a.max_positions - 1));
    const float* const angles = a.cos_sin + int64_t{position} * (2 * a.half) + column;
    LoadFloats(angles, cosine);
    LoadFloats(angles + a.half, sine);
  }

  int64_t slot;
  float cosine[kSize];
  float sine[kSize];
};

// kSize pairs of a head, query heads first, then key heads, which go into the cache as well.
template <typename T, typename TCache, int kSize>
__device__ __forceinline__ void RotatePairs(const RotateArguments& a, int head, int column) {
  const bool is_key = head >= a.num_heads;
  if (is_key) head -= a.num_heads;
  T* const rows = static_cast<T*>(is_key ? a.k : a.q) + int64_t{head} * a.head_dim + column;
  const int64_t stride = is_key ? a.k_stride : a.q_stride;
  ForMyTokens(
      a, [&](int64_t token) { return Rotation<kSize>(a, token, column); },
      [&](int64_t token, const Rotation<kSize>& rotation) {
        if (!IsSlot(a, rotation.slot)) return;
        T* const x = rows + token * stride;
        float first[kSize];
        float second[kSize];
        LoadFloats(x, first);
        LoadFloats(x + a.half, second);
#pragma unroll
        for (int i = 0; i < kSize; ++i) {
          const float rotated = first[i] * rotation.cosine[i] - second[i] * rotation.sine[i];
          second[i] = second[i] * rotation.cosine[i] + first[i] * rotation.sine[i];
          first[i] = rotated;
        }
        StoreFloats(first, x);
        StoreFloats(second, x + a.half);
        if (!is_key) return;
        TCache* const key = static_cast<TCache*>(a.keys) + CacheOffset(a, rotation.slot, head) + column;
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
        if (IsSlot(a, slot)) StoreFloats(x, static_cast<TCache*>(cache) + CacheOffset(a, slot, head) + column);
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
__global__ void __launch_bounds__(kThreads) RotateAndStoreKernel(const RotateArguments a) {
  AllowNext();
  const Units<kSize> units(a);
  int unit = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (unit < units.num_rotated) {
    return RotatePairs<T, TCache, kSize>(a, unit / units.rotated_per_head, unit % units.rotated_per_head * kSize);
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
         HasAlignedRows(op.k) && HasAlignedRows(op.v) && IsAligned(op.cos_sin) && IsAligned(op.cache.keys) &&
         IsAligned(op.cache.values);
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
  DispatchFloat(op.q.dtype, [&]<typename T>() {
    DispatchFloat(op.cache.dtype, [&]<typename TCache>() {
      DispatchVectors(TakesVectors(op), [&]<int kSize>() {
        constexpr int64_t kMaxGridY = 65535;
        const Units<kSize> units(arguments);
        const int num_units = units.num_rotated + units.num_plain + units.num_values;
        const dim3 grid(static_cast<unsigned>((num_units + kThreads - 1) / kThreads),
                        static_cast<unsigned>(std::min(arguments.num_tokens, kMaxGridY)));
        Launch(stream, RotateAndStoreKernel<T, TCache, kSize>, grid, dim3(kThreads), 0, arguments);
      });
    });
  });
}

}  // namespace heddle::cuda
