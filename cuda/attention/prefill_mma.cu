#include "attention/prefill.h"
#include "common/numeric.cuh"

namespace heddle::cuda {

void PrefillMma(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op) {
  const bool is_int8 = op.cache.dtype == kHeddleCudaInt8;
  if (op.q.dtype == kHeddleCudaFloat16) {
    return is_int8 ? PrefillMmaHeads<__half, true>(stream, op) : PrefillMmaHeads<__half, false>(stream, op);
  }
  is_int8 ? PrefillMmaHeads<__nv_bfloat16, true>(stream, op) : PrefillMmaHeads<__nv_bfloat16, false>(stream, op);
}

}  // namespace heddle::cuda
