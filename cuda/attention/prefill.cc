#include "attention/prefill.h"

#include "common/ops.h"

namespace heddle::cuda {

void PrefillAttention(HeddleCudaStream& stream, const HeddleCudaPagedAttention& op) {
  if (CanPrefillWgmma(stream, op)) return PrefillWgmma(stream, op);
  if (CanPrefillMma(op)) return PrefillMma(stream, op);
  PrefillGeneric(stream, op);
}

}  // namespace heddle::cuda
