// The memory of the paged KV cache of one rank, for all layers. Policy (which block belongs to whom) lives in the
// scheduler; this only owns bytes.
//
// Block 0 is the null block: never handed out, target of padding.
#pragma once

#include <vector>

#include "device/cuda_stream.h"
#include "ops/ops.h"
#include "tensor/tensor.h"

namespace heddle {

class KVCache {
 public:
  // Zeroed; host memory becomes resident as it is used. In the GPU's memory if `cuda` is given. Fails with
  // kInsufficientMemory.
  KVCache(DType dtype, int num_layers, int num_blocks, int block_size, int num_kv_heads, int head_dim,
          CudaStream* cuda = nullptr);

  const ops::KVCacheView& layer(int i) const { return layers_[static_cast<size_t>(i)]; }

  // Bytes of one block over all layers, keys and values, with the scales of int8 ones.
  static int64_t BytesPerBlock(DType dtype, int num_layers, int block_size, int num_kv_heads, int head_dim);

 private:
  std::vector<Tensor> memory_;
  std::vector<ops::KVCacheView> layers_;
};

}  // namespace heddle
