// Products of int8 weights, dense, with few rows of x: what Gemv is for others,
// but that a single row of kept x may be rounded otherwise by int8 weights than beside others (digit_x.cuh).
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

void Int8Gemv(const HeddleCudaStream& stream, const HeddleCudaMatmul& op);
void Int8Gemv(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op);

}  // namespace heddle::cuda
