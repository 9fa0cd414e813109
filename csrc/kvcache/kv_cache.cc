#include "kvcache/kv_cache.h"

#include "device/buffer.h"

namespace heddle {

KVCache::KVCache(DType dtype, int num_layers, int num_blocks, int block_size, int num_kv_heads, int head_dim) {
  HostSlab slab;
  for (int i = 0; i < num_layers; ++i) {
    const Tensor& keys = memory_.emplace_back(dtype, Shape{num_blocks, num_kv_heads, head_dim, block_size}, slab);
    const TensorView keys_view = keys.view();
    const Tensor& values = memory_.emplace_back(dtype, Shape{num_blocks, num_kv_heads, block_size, head_dim}, slab);
    layers_.push_back({keys_view, values.view(), block_size});
  }
}

int64_t KVCache::BytesPerBlock(DType dtype, int num_layers, int block_size, int num_kv_heads, int head_dim) {
  return int64_t{2} * num_layers * block_size * num_kv_heads * head_dim * static_cast<int64_t>(DTypeSize(dtype));
}

}  // namespace heddle
