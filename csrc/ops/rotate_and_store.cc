#include "ops/cache_checks.h"
#include "ops/checks.h"
#include "ops/cuda/ops.h"
#include "ops/ops.h"
#include "ops/parallel.h"

namespace heddle::ops {
namespace {

void CheckRotation(std::span<const int32_t> positions, const TensorView& cos_sin, int64_t head_dim) {
  CheckRank("RotateAndStore: cos_sin", cos_sin, 2);
  CheckView("RotateAndStore: cos_sin", cos_sin, DType::kFloat32, cos_sin.shape);
  HEDDLE_CHECK(cos_sin.dim(1) % 2 == 0 && cos_sin.dim(1) <= head_dim,
               std::to_string(cos_sin.dim(1)) + " rotated of " + std::to_string(head_dim));
  for (int32_t position : positions) {
    HEDDLE_CHECK(position >= 0 && position < cos_sin.dim(0),
                 std::to_string(position) + " of " + std::to_string(cos_sin.dim(0)) + " positions");
  }
}

void CheckSlots(std::span<const int64_t> slot_mapping, int64_t num_slots) {
  for (int64_t slot : slot_mapping) {
    HEDDLE_CHECK(slot >= 0 && slot < num_slots, "slot " + std::to_string(slot) + " of " + std::to_string(num_slots));
  }
}

}  // namespace

void RotateAndStore(Stream& stream, std::span<const int32_t> positions, const TensorView& cos_sin, const TensorView& q,
                    const TensorView& k, const TensorView& v, std::span<const int64_t> slot_mapping,
                    const KVCacheView& cache) {
  const OpTimer timer(stream);
  if (stream.cuda() != nullptr) {
    return cuda::RotateAndStore(stream, positions, cos_sin, q, k, v, slot_mapping, cache);
  }
  CheckRank("RotateAndStore: keys", cache.keys, 4);
  const int64_t num_blocks = cache.keys.dim(0);
  const int64_t num_kv_heads = cache.keys.dim(1);
  const int64_t head_dim = cache.keys.dim(2);
  const int64_t block_size = cache.block_size;
  const auto num_tokens = static_cast<int64_t>(slot_mapping.size());
  const cpu::Storage storage = CheckCache(cache, num_kv_heads, head_dim);
  CheckRank("RotateAndStore: q", q, 2);
  const int64_t group = q.dim(1) / (num_kv_heads * head_dim);  // query heads that share a key
  CheckView("RotateAndStore: q", q, DType::kFloat32, {num_tokens, group * num_kv_heads * head_dim});
  CheckView("RotateAndStore: k", k, DType::kFloat32, {num_tokens, num_kv_heads * head_dim});
  CheckView("RotateAndStore: v", v, DType::kFloat32, {num_tokens, num_kv_heads * head_dim});
  HEDDLE_CHECK(positions.size() == slot_mapping.size(),
               std::to_string(positions.size()) + " positions of " + std::to_string(num_tokens) + " tokens");
  CheckRotation(positions, cos_sin, head_dim);
  CheckSlots(slot_mapping, num_blocks * block_size);

  const cpu::Kernels& kernels = cpu::KernelsFor(stream.isa());
  const auto element_size = static_cast<int64_t>(DTypeSize(cache.keys.dtype));
  const auto rotate = [&](int64_t token, float* head) {
    const int64_t half = cos_sin.dim(1) / 2;
    const float* cos = cos_sin.Row<float>(positions[static_cast<size_t>(token)]);
    kernels.rotate(cos, cos + half, half, head);
  };
  const auto narrow = [&](const float* vector, const TensorView& to, int64_t first, int64_t stride,
                          const TensorView& scales, int64_t scale) {
    char* const destination = static_cast<char*>(to.data) + first * element_size;
    if (storage != cpu::Storage::kInt8) return kernels.narrow(storage, vector, head_dim, destination, stride);
    scales.Data<float>()[scale] = kernels.narrow_int8(vector, head_dim, destination, stride);
  };
  const auto store = [&](int64_t token, int64_t head, const float* key) {
    const int64_t slot = slot_mapping[static_cast<size_t>(token)];
    const int64_t first = (slot / block_size * num_kv_heads + head) * block_size;  // of the block, in tokens
    const int64_t offset = slot % block_size;
    const float* const value = v.Row<float>(token) + head * head_dim;
    narrow(key, cache.keys, first * head_dim + offset, block_size, cache.key_scales, first + offset);
    narrow(value, cache.values, (first + offset) * head_dim, 1, cache.value_scales, first + offset);
  };
  // Head by head: tokens that are neighbours in a block share cache lines, heads do not.
  ParallelFor(stream, num_kv_heads * num_tokens, (group + 2) * head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / num_tokens;
      const int64_t token = i % num_tokens;
      float* const key = k.Row<float>(token) + head * head_dim;
      float* const queries = q.Row<float>(token) + head * group * head_dim;
      for (int64_t query = 0; query < group; ++query) rotate(token, queries + query * head_dim);
      rotate(token, key);
      store(token, head, key);
    }
  });
}

}  // namespace heddle::ops
