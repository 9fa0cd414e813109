// Products with few rows of x, bound by reading the weights.
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

// Rows of x that one pass over the weights serves.
inline constexpr int64_t kMaxGemvRows = 8;

// Matmul and GatedMatmul with a dense weight of T for 1 to kMaxGemvRows rows, of arguments that were checked. The bits
// of a row of y do not depend on the rows beside it.
//
// Weights are read before kernels ahead of this one in the stream have ended (see launch.h): whoever writes a weight
// with a kernel lets something follow that is no kernel, as FillRandom does, or waits for the stream.
void Gemv(const HeddleCudaStream& stream, const HeddleCudaMatmul& op);
void Gemv(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op);

}  // namespace heddle::cuda
