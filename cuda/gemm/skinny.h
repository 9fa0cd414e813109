// Products with some more rows of x than Gemv takes, still bound by reading the weights.
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

inline constexpr int64_t kMaxSkinnyRows = 64;

// Whether SkinnyMatmul and SkinnyGatedMatmul take such operands: 16-bit, 1 to kMaxSkinnyRows rows, any sizes, on a
// Hopper GPU.
bool CanSkinny(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaMatrix& weight);

// Matmul and GatedMatmul with a dense weight of T, of arguments that were checked, the same bits whenever they are
// repeated. Weights are read early, as by Gemv.
void SkinnyMatmul(const HeddleCudaStream& stream, const HeddleCudaMatmul& op);
void SkinnyGatedMatmul(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op);

}  // namespace heddle::cuda
