#include "kvcache/kv_cache.h"

#include "device/buffer.h"

namespace heddle {

KVCache::KVCache(DType dtype, int num_layers, int num_blocks, int block_size, int num_kv_heads, int head_dim,
                 CudaStream* cuda) {
  HostSlab slab;
  Allocator& memory = cuda != nullptr ? static_cast<Allocator&>(*cuda) : slab;
  const bool scales_beside = cuda != nullptr && dtype == DType::kInt8;
  const int row_size = head_dim + (scales_beside ? ops::kScaleBytes : 0);
  const Shape tokens_first{num_blocks, num_kv_heads, block_size, row_size};
  const Shape keys_shape = cuda != nullptr ? tokens_first : Shape{num_blocks, num_kv_heads, head_dim, block_size};
  for (int i = 0; i < num_layers; ++i) {
    const TensorView keys_view = memory_.emplace_back(dtype, keys_shape, memory).view();
    const Tensor& values = memory_.emplace_back(dtype, tokens_first, memory);
    layers_.push_back({keys_view, values.view(), block_size, {}, {}});
    if (dtype != DType::kInt8 || scales_beside) continue;
    for (TensorView* scales : {&layers_.back().key_scales, &layers_.back().value_scales}) {
      *scales = memory_.emplace_back(DType::kFloat32, Shape{num_blocks, num_kv_heads, block_size}, memory).view();
    }
  }
}

int64_t KVCache::BytesPerBlock(DType dtype, int num_layers, int block_size, int num_kv_heads, int head_dim) {
  const int64_t scale_bytes = dtype == DType::kInt8 ? ops::kScaleBytes : 0;
  const int64_t head_bytes = head_dim * static_cast<int64_t>(DTypeSize(dtype)) + scale_bytes;
  return int64_t{2} * num_layers * block_size * num_kv_heads * head_bytes;
}

}  // namespace heddle
