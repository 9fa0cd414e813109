#include "compress/sparse_gpt.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "compress/cancellation.h"
#include "compress/matrix_algebra.h"
#include "compress/rows.h"

namespace heddle {
namespace {

constexpr int64_t kBlock = 128;  // columns whose errors are spread together to those after the block
constexpr double kDamping = 0.01;

// One row's part of a block: prunes it, spreads errors within it, and leaves each column's error in `errors`.
void PruneBlock(const TensorView& factor, int64_t begin, int64_t count, float* row, float* errors) {
  uint8_t mask = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float* factors = factor.Row<float>(begin + i) + begin;
    if (i % 4 == 0) {
      std::array<float, 4> scores;
      for (int64_t j = 0; j < 4; ++j) {
        const float ratio = row[i + j] / factor.Row<float>(begin + i + j)[begin + i + j];
        scores[static_cast<size_t>(j)] = ratio * ratio;
      }
      TwoOfFourMask(scores, &mask);
    }
    errors[i] = IsKept(&mask, i % 4) ? 0 : row[i] / factors[i];
    if (errors[i] == 0) continue;
    for (int64_t j = i; j < count; ++j) row[j] -= errors[i] * factors[j];
    row[i] = 0;
  }
}

}  // namespace

int64_t HessianFactor::SizeBytes(int64_t columns) {
  return 3 * columns * columns * static_cast<int64_t>(sizeof(float));
}

HessianFactor::HessianFactor(Stream& stream, const Tensor& hessian, const std::string& layer,
                             const std::atomic<bool>& cancelled)
    : dead_(static_cast<size_t>(hessian.view().dim(0))) {
  const TensorView& h = hessian.view();
  const int64_t n = h.dim(0);
  double mean = 0;
  for (int64_t i = 0; i < n; ++i) {
    dead_[static_cast<size_t>(i)] = h.Row<float>(i)[i] == 0;
    if (IsDead(i)) h.Row<float>(i)[i] = 1;
    mean += h.Row<float>(i)[i] / static_cast<double>(n);
  }
  if (!std::isfinite(mean)) {
    throw Error(ErrorCode::kModelFormat,
                "on the calibration text an input of layer \"" + layer + "\" is not a finite number");
  }
  // Factoring spoils what it works on.
  for (double damping = kDamping; factor_.empty(); damping *= 10) {
    Tensor damped(DType::kFloat32, {n, n});
    for (int64_t i = 0; i < n; ++i) {
      std::copy_n(h.Row<float>(i), i + 1, damped.view().Row<float>(i));
      damped.view().Row<float>(i)[i] += static_cast<float>(damping * mean);
    }
    if (InverseFactor(stream, damped, cancelled)) factor_ = damped;
    HEDDLE_CHECK(damping < 1e6 || !factor_.empty(), "second moments of inputs have no inverse");
  }
}

void PruneSparseGpt(Stream& stream, const HessianFactor& factor, const TensorView& weights,
                    const std::atomic<bool>& cancelled) {
  const int64_t rows = weights.dim(0);
  const int64_t columns = weights.dim(1);
  ThreadPool& threads = stream.threads();
  for (int64_t begin = 0; begin < columns; begin += kBlock) {
    ThrowIfCancelled(cancelled);
    const int64_t end = std::min(begin + kBlock, columns);
    const Tensor errors(DType::kFloat32, {rows, end - begin});
    threads.RunPieces(rows, 16, [&](int, int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        float* row = weights.Row<float>(r) + begin;
        for (int64_t i = begin; i < end; ++i) row[i - begin] = factor.IsDead(i) ? 0 : row[i - begin];
        PruneBlock(factor.view(), begin, end - begin, row, errors.view().Row<float>(r));
      }
    });
    if (end == columns) return;
    // The factor's rows of the block, transposed as products take them.
    const Tensor spread(DType::kFloat32, {columns - end, end - begin});
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = end; j < columns; ++j) {
        spread.view().Row<float>(j - end)[i - begin] = factor.view().Row<float>(i)[j];
      }
    }
    AddProduct(stream, -1, errors, spread, weights.Columns(end, columns));
  }
}

}  // namespace heddle
