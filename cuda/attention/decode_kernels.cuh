// Chooses among the tensor-core kernels of one type; instantiated once a type, each in a file of its own.
#pragma once

#include "attention/decode.h"
#include "attention/decode_tensor.cuh"

namespace heddle::cuda {

template <typename T, int kHeadDim, int kHeads>
DecodeKernel MakeTensorKernel() {
  return {.function = DecodeTensorKernel<T, kHeadDim, kHeads>,
          .max_heads_per_tile = kHeads,
          .unit_bytes = kDecodeWarps * ChunkStage<kHeadDim>::kBytes};
}

template <typename T>
DecodeKernel TensorDecodeKernel(int head_dim, int group_size) {
  const bool is_narrow = group_size <= 8;
  switch (head_dim) {
    case 64:
      return is_narrow ? MakeTensorKernel<T, 64, 8>() : MakeTensorKernel<T, 64, 16>();
    case 96:
      return is_narrow ? MakeTensorKernel<T, 96, 8>() : MakeTensorKernel<T, 96, 16>();
    case 128:
      return is_narrow ? MakeTensorKernel<T, 128, 8>() : MakeTensorKernel<T, 128, 16>();
    case 256:
      // Sixteen heads would not fit into registers.
      return MakeTensorKernel<T, 256, 8>();
    default:
      return {};
  }
}

}  // namespace heddle::cuda
