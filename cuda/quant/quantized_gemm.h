// Products with quantised weights of more rows of x than Gemv takes, on Hopper.
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

// Whether TileMatmul and TileGatedMatmul take such operands: a weight that is int8, 2:4 or both, more rows of x than
// Gemv takes, on a Hopper GPU.
bool CanTile(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaWeight& weight);

// Matmul and GatedMatmul, of arguments that were checked, the same bits whenever they are repeated; a gated product has
// a multiple of 8 outputs. Weights are read early, as by Gemv.
void TileMatmul(const HeddleCudaStream& stream, const HeddleCudaMatmul& op);
void TileGatedMatmul(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op);

}  // namespace heddle::cuda
