// Products of 2:4 weights, of x's type or int8, with few rows of x: what Gemv is for others,
// but that a single row of kept x may be rounded otherwise by int8 weights than beside others (digit_x.cuh).
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

void SparseGemv(const HeddleCudaStream& stream, const HeddleCudaMatmul& op);
void SparseGemv(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op);
void SparseInt8Gemv(const HeddleCudaStream& stream, const HeddleCudaMatmul& op);
void SparseInt8Gemv(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op);

}  // namespace heddle::cuda
