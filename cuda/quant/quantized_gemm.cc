#include "quant/quantized_gemm.h"

#include <algorithm>
#include <cmath>

#include "common/checks.h"
#include "common/rounding.h"
#include "common/scratch_memory.h"
#include "gemm/gemv.h"
#include "gemm/skinny.h"
#include "quant/outlier_panel.h"
#include "quant/quantize_rows.h"
#include "quant/tile_product.h"

namespace heddle::cuda {
namespace {

// What the panels of x take of memory.
struct PanelMemory {
  PanelMemory(const HeddleCudaMatrix& x, int columns_of_step, int rows_of_group) {
    const int64_t num_groups = CeilDiv(x.num_rows, rows_of_group);
    const int64_t num_steps = CeilDiv(x.size, columns_of_step);
    count_bytes = num_groups * PanelCountStride(num_steps);
    panel_bytes = PanelOffset(num_groups, num_steps, 0, columns_of_step, rows_of_group);
  }
  // With what it takes to begin on 256 bytes each.
  int64_t Bytes() const { return count_bytes + panel_bytes + 512; }

  int64_t count_bytes;
  int64_t panel_bytes;
};

// x as int8, its scales and what is beside them, then the product.
void QuantizeAndMultiply(const HeddleCudaStream& stream, TileProduct product) {
  const HeddleCudaMatrix x = product.x;
  const bool sparse = product.weight.metadata != nullptr;
  const int64_t stride = RoundUp(x.size, 16);
  const int64_t padded = RoundUp(x.num_rows, kMaxTileXRows);
  ScratchMemory memory(stream);
  product.x = {memory.Take<int8_t>(x.num_rows * stride), kHeddleCudaInt8, x.num_rows, x.size, stride};
  auto* const row_scales = memory.Take<float>(padded);
  product.row_scales = row_scales;
  if (std::isinf(product.weight.outlier_threshold)) {
    product.scratch = memory.Rest();
    product.scratch_bytes = memory.RestBytes();
    QuantizeRows(stream, x, product.x, row_scales);
    if (sparse) return LaunchSparseInt8Tiles(stream, product);
    if (x.num_rows <= kMaxSkinnyRows) return LaunchInt8Skinny(stream, product);
    return LaunchInt8Tiles(stream, product);
  }
  Outliers& outliers = product.outliers;
  outliers.dtype = x.dtype;
  outliers.columns_of_step = sparse ? kSparseColumnsOfStep : kColumnsOfStep;
  product.scratch_bytes = memory.RestBytes();
  int most_rows = kMaxTileXRows;
  const auto bytes_of = [&](int rows) { return PanelMemory(x, outliers.columns_of_step, rows).Bytes(); };
  while (most_rows > 16 && bytes_of(most_rows) > memory.RestBytes()) most_rows /= 2;
  outliers.rows_of_group =
      sparse ? RowsOfSparseOutlierTiles(stream, product, most_rows) : RowsOfOutlierTiles(stream, product, most_rows);
  const PanelMemory panels(x, outliers.columns_of_step, outliers.rows_of_group);
  outliers.num_panels = memory.Take<uint8_t>(panels.count_bytes);
  outliers.panels = memory.Take<uint8_t>(panels.panel_bytes);
  product.scratch = memory.Rest();
  product.scratch_bytes = memory.RestBytes();
  QuantizeRowsButOutliers(stream, x, product.weight.outlier_threshold, product.x, row_scales, outliers);
  sparse ? LaunchSparseOutlierTiles(stream, product) : LaunchOutlierTiles(stream, product);
}

// As many rows at a time as leave room in the workspace for the sums of tiles of 128 rows that blocks share, or half of
// it.
void MultiplyQuantizedX(const HeddleCudaStream& stream, const TileProduct& whole) {
  const bool has_outliers = !std::isinf(whole.weight.outlier_threshold);
  // Of columns of whole steps, of which each takes a byte of a panel, of 16 rows or more.
  const int64_t outlier_bytes = has_outliers ? RoundUp(whole.x.size, kSparseColumnsOfStep) * 33 / 16 : 0;
  const int64_t row_bytes = RoundUp(whole.x.size, 16) + outlier_bytes + 64;
  const int64_t most_for_sums = int64_t{40} << 20;
  const int64_t available = stream.workspace_bytes - std::min(most_for_sums, stream.workspace_bytes / 2);
  const int64_t fit = std::max<int64_t>(available / row_bytes, 1);
  const int64_t most = fit < kMaxTileXRows ? fit : fit / kMaxTileXRows * kMaxTileXRows;
  for (int64_t first = 0; first < whole.x.num_rows; first += most) {
    TileProduct part = whole;
    const int64_t count = std::min(most, whole.x.num_rows - first);
    part.x = RowsOf(whole.x, first, count);
    part.y = RowsOf(whole.y, first, count);
    QuantizeAndMultiply(stream, part);
  }
}

void Multiply(const HeddleCudaStream& stream, TileProduct product) {
  if (product.weight.x_quantization == kHeddleCudaQuantizeX) return MultiplyQuantizedX(stream, product);
  product.scratch = stream.workspace;
  product.scratch_bytes = stream.workspace_bytes;
  if (product.weight.metadata == nullptr) return LaunchConvertedTiles(stream, product);
  if (product.weight.values.dtype == kHeddleCudaInt8) return LaunchSparseConvertedTiles(stream, product);
  LaunchSparseTiles(stream, product);
}

}  // namespace

bool CanTile(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaWeight& weight) {
  // Steps and rows are counted in 32 bits.
  return stream.properties.major == 9 && stream.properties.minor == 0 && x.num_rows > kMaxGemvRows &&
         x.size <= (1 << 24) && weight.values.num_rows <= (1 << 30) &&
         (weight.values.dtype == kHeddleCudaInt8 || weight.metadata != nullptr);
}

void TileMatmul(const HeddleCudaStream& stream, const HeddleCudaMatmul& op) {
  TileProduct product{};
  product.x = op.x;
  product.weight = op.weight;
  product.bias = op.bias;
  product.y = op.y;
  Multiply(stream, product);
}

void TileGatedMatmul(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) {
  TileProduct product{};
  product.x = op.x;
  product.weight = op.gate_up;
  product.bias = op.bias;
  product.y = op.y;
  product.gated = true;
  product.activation = op.activation;
  Multiply(stream, product);
}

}  // namespace heddle::cuda
