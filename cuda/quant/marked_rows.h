// Rows of x as int8, each with a scale, in scratch memory: where x is so large that each block of a product would be
// long about quantising it.
#pragma once

#include "common/stream.h"
#include "gemm/gemv_arguments.h"

namespace heddle::cuda {

// The bits of the smallest number of `dtype`, which has 16 bits, that reaches `threshold`.
uint32_t OutlierBits(HeddleCudaDType dtype, float threshold);

// Sets arguments.marked, marked_scales and marked_pitch: q of HeddleCudaWeight, but -128, which q never is, where
// arguments.outlier_bits makes an element of x an outlier. Rows end with zeros. Takes the stream's scratch memory.
void MarkRows(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, GemvArguments& arguments);

}  // namespace heddle::cuda
