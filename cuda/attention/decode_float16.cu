#include "attention/decode_kernels.cuh"

namespace heddle::cuda {

template DecodeKernel TensorDecodeKernel<__half, __half>(int head_dim, int group_size);

}  // namespace heddle::cuda
