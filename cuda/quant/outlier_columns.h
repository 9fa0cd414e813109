// Outliers as bitsandbytes has them, whole columns of x, without asking the host which: what surrounds its functions.
//
// A bit a column, 32 of them a word; x is [num_rows, k] of 16 bits, its rows on 16 bytes, k a multiple of 4.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "common/stream.h"

namespace heddle::cuda {

// rounded [num_rows, k], contiguous, is x as float16, and columns [CeilDiv(k, 32)] says which columns have an element
// that, so rounded, is not below `threshold` in magnitude, or NaN.
void FindOutlierColumns(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, float threshold, __half* rounded,
                        uint32_t* columns);

// q, contiguous, becomes 0 in these columns, and `largest` [q.num_rows] 127 times what it was.
void ClearOutlierColumns(const HeddleCudaStream& stream, const HeddleCudaMatrix& q, const uint32_t* columns,
                         float* largest);

// y = sums + x * weight^T over these columns of x (+ bias), with float32 sums, rounded once. sums [num_rows, n],
// contiguous, may be y; weight int8, n a multiple of 4; y of x's dtype or float32.
void AddOutlierColumns(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaWeight& weight,
                       const uint32_t* columns, const __half* sums, const float* bias, const HeddleCudaMatrix& y);

}  // namespace heddle::cuda
