#include "attention/decode_kernels.cuh"

namespace heddle::cuda {

template DecodeKernel TensorDecodeKernel<__nv_bfloat16, __nv_bfloat16>(int head_dim, int group_size);

}  // namespace heddle::cuda
