#include "compress/smooth_quant.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "base/dtype.h"

namespace heddle {
namespace {

constexpr int64_t kRowsAtOnce = 16;
constexpr float kSmallestScale = 1e-5f;

const SourceMatrix& FindMatrix(const SourceCheckpoint& source, const std::string& prefix) {
  const auto& matrices = source.matrices();
  const auto found =
      std::find_if(matrices.begin(), matrices.end(), [&](const auto& matrix) { return matrix.prefix == prefix; });
  HEDDLE_CHECK(found != matrices.end(), prefix);
  return *found;
}

// The largest magnitude of each column, over all matrices of the input.
std::vector<float> LargestWeights(const SourceCheckpoint& source, const LayerInput& input, ThreadPool& threads) {
  std::vector<float> largest(static_cast<size_t>(input.columns));
  std::mutex mutex;
  for (const std::string& prefix : input.prefixes) {
    const SourceMatrix& matrix = FindMatrix(source, prefix);
    threads.RunPieces(matrix.rows, kRowsAtOnce, [&](int, int64_t begin, int64_t end) {
      std::vector<float> rows(static_cast<size_t>((end - begin) * matrix.columns));
      source.ReadRows(matrix, begin, end, rows.data());
      const std::lock_guard lock(mutex);
      for (size_t i = 0; i < rows.size(); ++i) {
        float& value = largest[i % largest.size()];
        value = std::max(value, std::fabs(rows[i]));
      }
    });
  }
  return largest;
}

}  // namespace

void Smooth(const SourceCheckpoint& source, const LayerInput& input, float norm_offset, std::span<const float> largest,
            float alpha, ThreadPool& threads, Smoothing& smoothing) {
  const std::vector<float> weights = LargestWeights(source, input, threads);
  SourceCheckpoint::Vector norm = source.ReadVector(input.norm);
  std::vector<float> scales(weights.size(), 1.0f);
  for (size_t i = 0; i < scales.size(); ++i) {
    if (!(largest[i] > 0) || !(weights[i] > 0)) continue;
    const float wanted = std::max(std::pow(largest[i], alpha) / std::pow(weights[i], 1 - alpha), kSmallestScale);
    const float factor = norm.values[i] + norm_offset;
    const float smoothed = Rounded(norm.dtype, factor / wanted - norm_offset);
    const float scale = factor / (smoothed + norm_offset);
    if (!std::isfinite(scale) || scale == 0) continue;
    scales[i] = scale;
    norm.values[i] = smoothed;
  }
  for (const std::string& prefix : input.prefixes) smoothing.column_scales[prefix] = scales;
  smoothing.norms[input.norm] = std::move(norm.values);
}

}  // namespace heddle
