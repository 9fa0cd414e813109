#include "compress/matrix_algebra.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "compress/cancellation.h"
#include "ops/ops.h"
#include "ops/packed_matrix.h"

namespace heddle {
namespace {

constexpr int64_t kBlock = 128;        // columns that are factored one by one
constexpr int64_t kPackedRows = 1024;  // rows of b that are packed at a time

// Rows a triangle's columns have to be computed for.
int64_t FirstRow(bool lower, int64_t column) { return lower ? column : 0; }

// l, the lower triangle on the diagonal of a matrix, in place; above it 0. False when it has no such factor.
bool FactorBlock(const TensorView& block) {
  const int64_t n = block.dim(0);
  for (int64_t j = 0; j < n; ++j) {
    double pivot = block.Row<float>(j)[j];
    for (int64_t k = 0; k < j; ++k) pivot -= static_cast<double>(block.Row<float>(j)[k]) * block.Row<float>(j)[k];
    if (!(pivot > 0) || !std::isfinite(pivot)) return false;
    const double root = std::sqrt(pivot);
    block.Row<float>(j)[j] = static_cast<float>(root);
    for (int64_t i = j + 1; i < n; ++i) {
      double value = block.Row<float>(i)[j];
      for (int64_t k = 0; k < j; ++k) value -= static_cast<double>(block.Row<float>(i)[k]) * block.Row<float>(j)[k];
      block.Row<float>(i)[j] = static_cast<float>(value / root);
    }
    std::fill(block.Row<float>(j) + j + 1, block.Row<float>(j) + n, 0.0f);
  }
  return true;
}

// The inverse of a lower triangle.
Tensor InvertBlock(const TensorView& l) {
  const int64_t n = l.dim(0);
  Tensor inverse(DType::kFloat32, {n, n});
  const TensorView& x = inverse.view();
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t i = j; i < n; ++i) {
      double value = i == j ? 1 : 0;
      for (int64_t k = j; k < i; ++k) value -= static_cast<double>(l.Row<float>(i)[k]) * x.Row<float>(k)[j];
      x.Row<float>(i)[j] = static_cast<float>(value / l.Row<float>(i)[i]);
    }
  }
  return inverse;
}

// l with l l^T = matrix, in its place, below and on the diagonal, and the inverses of its blocks on the diagonal.
bool Cholesky(Stream& stream, const TensorView& matrix, std::vector<Tensor>& inverses,
              const std::atomic<bool>& cancelled) {
  const int64_t n = matrix.dim(0);
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    ThrowIfCancelled(cancelled);
    const int64_t end = std::min(begin + kBlock, n);
    const TensorView block = matrix.Rows(begin, end).Columns(begin, end);
    if (!FactorBlock(block)) return false;
    inverses.push_back(InvertBlock(block));
    if (end == n) return true;
    // l below the block = what stands there * the transposed inverse of the block.
    const TensorView below = matrix.Rows(end, n).Columns(begin, end);
    const Tensor product(DType::kFloat32, {n - end, end - begin});
    AddProduct(stream, 1, below, inverses.back(), product);
    stream.threads().RunPieces(n - end, 64, [&](int, int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        std::copy_n(product.view().Row<float>(i), end - begin, below.Row<float>(i));
      }
    });
    AddProduct(stream, -1, product, product, matrix.Rows(end, n).Columns(end, n), true);
  }
  return true;
}

// The transposed inverse of l, an upper triangle.
Tensor InvertTransposed(Stream& stream, const TensorView& l, const std::vector<Tensor>& inverses,
                        const std::atomic<bool>& cancelled) {
  const int64_t n = l.dim(0);
  Tensor result(DType::kFloat32, {n, n});
  const TensorView& v = result.view();
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    ThrowIfCancelled(cancelled);
    const int64_t end = std::min(begin + kBlock, n);
    const TensorView& inverse = inverses[static_cast<size_t>(begin / kBlock)].view();
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = begin; j <= i; ++j) v.Row<float>(j)[i] = inverse.Row<float>(i - begin)[j - begin];
    }
    if (begin == 0) continue;
    const Tensor sums(DType::kFloat32, {begin, end - begin});
    AddProduct(stream, -1, v.Rows(0, begin).Columns(0, begin), l.Rows(begin, end).Columns(0, begin), sums);
    AddProduct(stream, 1, sums, inverse, v.Rows(0, begin).Columns(begin, end));
  }
  return result;
}

}  // namespace

void AddProduct(Stream& stream, float scale, const TensorView& a, const TensorView& b, const TensorView& c,
                bool lower) {
  const int64_t m = a.dim(0);
  const int64_t n = b.dim(0);
  const int64_t k = a.dim(1);
  HEDDLE_CHECK(b.dim(1) == k && c.dim(0) == m && c.dim(1) == n, c.shape.ToString());
  ThreadPool& threads = stream.threads();
  for (int64_t begin = 0; begin < n; begin += kPackedRows) {
    const int64_t end = std::min(begin + kPackedRows, n);
    const int64_t first_row = FirstRow(lower, begin);
    PackedMatrix packed({.dtype = DType::kFloat32}, end - begin, k, {0, k});
    threads.RunPieces(packed.num_panels(), 1, [&](int, int64_t first, int64_t last) {
      const int64_t to = std::min(last * kPanelWidth, end - begin);
      packed.PackRows(first * kPanelWidth, b.Rows(begin + first * kPanelWidth, begin + to));
    });
    for (int64_t row = first_row; row < m; row += kPackedRows) {
      const int64_t last_row = std::min(row + kPackedRows, m);
      const Tensor product(DType::kFloat32, {last_row - row, end - begin});
      ops::Matmul(stream, a.Rows(row, last_row), packed, product);
      threads.RunPieces(last_row - row, 16, [&](int, int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
          const float* from = product.view().Row<float>(i);
          float* to = c.Row<float>(row + i) + begin;
          for (int64_t j = 0; j < end - begin; ++j) to[j] += scale * from[j];
        }
      });
    }
  }
}

bool InverseFactor(Stream& stream, const TensorView& matrix, const std::atomic<bool>& cancelled) {
  // With the order of rows and columns reversed, matrix = l l^T gives u = the inverse of l, reversed.
  const int64_t n = matrix.dim(0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i && i + j < n; ++j) {
      std::swap(matrix.Row<float>(i)[j], matrix.Row<float>(n - 1 - j)[n - 1 - i]);
    }
  }
  std::vector<Tensor> inverses;
  if (!Cholesky(stream, matrix, inverses, cancelled)) return false;
  const Tensor inverse = InvertTransposed(stream, matrix, inverses, cancelled);
  stream.threads().RunPieces(n, 16, [&](int, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      float* row = matrix.Row<float>(i);
      for (int64_t j = 0; j < n; ++j) row[j] = j < i ? 0 : inverse.view().Row<float>(n - 1 - j)[n - 1 - i];
    }
  });
  return true;
}

}  // namespace heddle
