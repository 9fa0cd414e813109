#include "ops/checks.h"
#include "ops/ops.h"
#include "ops/parallel.h"

namespace heddle::ops {

void StoreKVCache(Stream& stream, const TensorView& k, const TensorView& v, std::span<const int64_t> slot_mapping,
                  const KVCacheView& cache) {
  CheckRank("StoreKVCache: keys", cache.keys, 4);
  const int64_t num_blocks = cache.keys.dim(0);
  const int64_t num_kv_heads = cache.keys.dim(1);
  const int64_t head_dim = cache.keys.dim(2);
  const int64_t block_size = cache.block_size;
  const auto num_tokens = static_cast<int64_t>(slot_mapping.size());
  const DType dtype = cache.keys.dtype;
  CheckContiguous("StoreKVCache: keys", cache.keys, dtype, {num_blocks, num_kv_heads, head_dim, block_size});
  CheckContiguous("StoreKVCache: values", cache.values, dtype, {num_blocks, num_kv_heads, block_size, head_dim});
  CheckView("StoreKVCache: k", k, DType::kFloat32, {num_tokens, num_kv_heads * head_dim});
  CheckView("StoreKVCache: v", v, DType::kFloat32, {num_tokens, num_kv_heads * head_dim});
  for (int64_t slot : slot_mapping) {
    HEDDLE_CHECK(slot >= 0 && slot < num_blocks * block_size,
                 "slot " + std::to_string(slot) + " of " + std::to_string(num_blocks * block_size));
  }
  const cpu::Storage storage = StorageOf("StoreKVCache: cache", dtype);
  const auto element = static_cast<int64_t>(DTypeSize(dtype));
  char* keys = static_cast<char*>(cache.keys.data);
  char* values = static_cast<char*>(cache.values.data);
  const cpu::Kernels& kernels = cpu::KernelsFor(stream.isa());
  // Head by head: tokens that are neighbours in a block share cache lines, heads do not.
  ParallelFor(stream, num_kv_heads * num_tokens, 2 * head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / num_tokens;
      const int64_t token = i % num_tokens;
      const int64_t slot = slot_mapping[static_cast<size_t>(token)];
      const int64_t first = (slot / block_size * num_kv_heads + head) * head_dim * block_size;
      const int64_t offset = slot % block_size;
      kernels.narrow(storage, k.Row<float>(token) + head * head_dim, head_dim, keys + (first + offset) * element,
                     block_size);
      kernels.narrow(storage, v.Row<float>(token) + head * head_dim, head_dim,
                     values + (first + offset * head_dim) * element, 1);
    }
  });
}

}  // namespace heddle::ops
