// Chooses among the tensor-core kernels of one type of queries and one of caches; instantiated once for each, in a file
// of its own.
#pragma once

#include "attention/decode.h"
#include "attention/decode_tensor.cuh"

namespace heddle::cuda {

template <typename T, typename C, int kHeadDim, int kHeads>
DecodeKernel MakeTensorKernel() {
  return {.function = DecodeTensorKernel<T, C, kHeadDim, kHeads>,
          .max_heads_per_tile = kHeads,
          .unit_bytes = kDecodeWarps * ChunkStage<T, C, kHeadDim>::kBytes};
}

template <typename T, typename C>
DecodeKernel TensorDecodeKernel(int head_dim, int group_size) {
  const bool is_narrow = group_size <= 8;
  switch (head_dim) {
    case 64:
      return is_narrow ? MakeTensorKernel<T, C, 64, 8>() : MakeTensorKernel<T, C, 64, 16>();
    case 96:
      return is_narrow ? MakeTensorKernel<T, C, 96, 8>() : MakeTensorKernel<T, C, 96, 16>();
    case 128:
      return is_narrow ? MakeTensorKernel<T, C, 128, 8>() : MakeTensorKernel<T, C, 128, 16>();
    case 256:
      // Sixteen heads would not fit into registers.
      return MakeTensorKernel<T, C, 256, 8>();
    default:
      return {};
  }
}

}  // namespace heddle::cuda
