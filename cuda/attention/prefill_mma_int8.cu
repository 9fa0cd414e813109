#include "attention/prefill_mma.cuh"

namespace heddle::cuda {

template void PrefillMmaHeads<__half, true>(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op);
template void PrefillMmaHeads<__nv_bfloat16, true>(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op);

}  // namespace heddle::cuda
