// Products of int8 weights, dense, with few rows of x: what Gemv is for others.
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

void Int8Gemv(const HeddleCudaStream& stream, const HeddleCudaMatmul& op);
void Int8Gemv(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op);

}  // namespace heddle::cuda
