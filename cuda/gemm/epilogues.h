// What follows a product whose sums are in scratch memory: one pass over them, at the speed of device memory.
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

// y = sums + bias, rounded once. sums [num_rows, n] float32, bias [n], y [num_rows, n] of any float type.
void RoundWithBias(const HeddleCudaStream& stream, const HeddleCudaMatrix& sums, const float* bias,
                   const HeddleCudaMatrix& y);

// y = activation(gate + its bias) * (up + its bias), rounded once. sums [num_rows, 2n] float32 or of y's type: gate,
// then up; bias [2n], may be null; y [num_rows, n] of any float type.
void GateSums(const HeddleCudaStream& stream, const HeddleCudaMatrix& sums, const float* bias,
              HeddleCudaActivation activation, const HeddleCudaMatrix& y);

}  // namespace heddle::cuda
