#include "attention/decode_kernels.cuh"

namespace heddle::cuda {

template DecodeKernel TensorDecodeKernel<__half, int8_t>(int head_dim, int group_size);

}  // namespace heddle::cuda
