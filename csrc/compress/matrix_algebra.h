// What SparseGPT needs of linear algebra, on the matrix product of ops/: all matrices float32, row-major, rows may be
// strided. On the stream's thread.
#pragma once

#include <atomic>

#include "device/stream.h"
#include "tensor/tensor.h"

namespace heddle {

// c += scale * a b^T. a [m, k], b [n, k], c [m, n]. With `lower`, c is square and only what is on and below its
// diagonal counts; the rest is unspecified.
void AddProduct(Stream& stream, float scale, const TensorView& a, const TensorView& b, const TensorView& c,
                bool lower = false);

// The upper triangular u with u^T u = the inverse of `matrix` [n, n], in its place; below the diagonal 0. Of `matrix`,
// symmetric, only what is on and below the diagonal is read. False, with `matrix` spoilt, when it is not positive
// definite. Needs as much memory as `matrix` beside it. Fails with kCancelled.
bool InverseFactor(Stream& stream, const TensorView& matrix, const std::atomic<bool>& cancelled);

}  // namespace heddle
