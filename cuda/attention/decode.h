// The kernels that DecodeAttention chooses from.
#pragma once

#include <cstddef>

#include "attention/decode_split.cuh"

namespace heddle::cuda {

struct DecodeKernel {
  void (*function)(DecodeParameters) = nullptr;
  int max_heads_per_tile = 0;
  int unit_bytes = 0;            // of shared memory for one stage of all warps; 0: it has no stages
  int query_bytes_per_head = 0;  // of shared memory, of each head of a tile
};

// For queries of a 16-bit type T and caches of the same or of int8_t. Null function: there is none for this head_dim.
template <typename T, typename C>
DecodeKernel TensorDecodeKernel(int head_dim, int group_size);

// For everything else.
DecodeKernel GenericDecodeKernel(HeddleCudaDType cache_dtype, int head_dim);

}  // namespace heddle::cuda
