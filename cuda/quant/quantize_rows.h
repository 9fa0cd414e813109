// x as int8, for products with int8 weights.
#pragma once

#include "common/stream.h"
#include "quant/tile_product.h"

namespace heddle::cuda {

// q [num_rows, size] int8 and scales [num_rows]: with a = max |x[j]| of a row, q[j] = rint(x[j] * (127 / a)), 0 where
// 127 / a is infinite, and scale = a / 127. NaN or infinity in a row of x makes its scale NaN. x of 16 bits, its rows
// on 16 bytes; rows of q lie on 16 bytes, and up to a multiple of 8 elements what is between them may be written.
void QuantizeRows(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaMatrix& q, float* scales);

// The same but for outliers, elements of `threshold` or more, which do not count for a and whose q is 0: they go to
// `outliers`, whose panels lie on 16 bytes.
void QuantizeRowsButOutliers(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, float threshold,
                             const HeddleCudaMatrix& q, float* scales, const Outliers& outliers);

}  // namespace heddle::cuda
