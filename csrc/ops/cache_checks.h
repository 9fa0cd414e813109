// What ops over the paged KV cache of the CPU check on entry.
#pragma once

#include "ops/checks.h"
#include "ops/ops.h"

namespace heddle::ops {

// Keys, values and scales have the shapes that ops/ops.h gives them; returns how they are stored.
inline cpu::Storage CheckCache(const KVCacheView& cache, int64_t num_kv_heads, int64_t head_dim) {
  const DType dtype = cache.keys.dtype;
  const int64_t num_blocks = cache.keys.dim(0);
  CheckContiguous("KV cache: keys", cache.keys, dtype, {num_blocks, num_kv_heads, head_dim, cache.block_size});
  CheckContiguous("KV cache: values", cache.values, dtype, {num_blocks, num_kv_heads, cache.block_size, head_dim});
  if (dtype != DType::kInt8) return StorageOf("KV cache", dtype);
  for (const TensorView* scales : {&cache.key_scales, &cache.value_scales}) {
    CheckContiguous("KV cache: scales", *scales, DType::kFloat32, {num_blocks, num_kv_heads, cache.block_size});
  }
  return cpu::Storage::kInt8;
}

}  // namespace heddle::ops
