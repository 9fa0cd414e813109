#include "attention/prefill_mma.cuh"

namespace heddle::cuda {

template void PrefillMmaHeads<__half, false>(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op);
template void PrefillMmaHeads<__nv_bfloat16, false>(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op);

}  // namespace heddle::cuda
