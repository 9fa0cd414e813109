#include "attention/prefill.h"

#include "common/ops.h"

namespace heddle::cuda {

bool CanPrefillMma(const HeddleCudaPagedAttention& op) {
  const int head_dim = op.cache.head_dim;
  const bool has_shape = head_dim == 64 || head_dim == 96 || head_dim == 128 || head_dim == 256;
  const bool has_types =
      op.q.dtype != kHeddleCudaFloat32 && (op.cache.dtype == op.q.dtype || op.cache.dtype == kHeddleCudaInt8);
  // With a soft cap the scores are scaled before their largest is found; otherwise a factor that is not positive would
  // make it the smallest.
  return has_shape && has_types && (op.scale > 0 || op.soft_cap != 0);
}

void PrefillAttention(HeddleCudaStream& stream, const HeddleCudaPagedAttention& op) {
  if (CanPrefillWgmma(stream, op)) return PrefillWgmma(stream, op);
  if (CanPrefillMma(op)) return PrefillMma(stream, op);
  PrefillGeneric(stream, op);
}

}  // namespace heddle::cuda
