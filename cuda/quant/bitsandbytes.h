// Products with int8 weights by the functions of bitsandbytes.
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

// Whether they take a weight of these sizes: multiples of 4.
bool BitsAndBytesTakes(const HeddleCudaWeight& weight);

// Matmul and GatedMatmul of kHeddleCudaBitsAndBytesX, of arguments that were checked, the same bits whenever they are
// repeated. Fail with kHeddleCudaUnavailable as BitsAndBytes does.
void BitsAndBytesMatmul(const HeddleCudaStream& stream, const HeddleCudaMatmul& op);
void BitsAndBytesGatedMatmul(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op);

}  // namespace heddle::cuda
