// What the kernel of a product is told, and which of the kernels it is.
#pragma once

#include <algorithm>
#include <iterator>
#include <limits>

#include "common/checks.h"
#include "common/tensor_map.h"
#include "quant/tile_division.cuh"
#include "quant/tile_kernel.cuh"
#include "quant/tile_product.h"

namespace heddle::cuda {

inline TensorMapShape RowsShape(const HeddleCudaMatrix& matrix, int64_t box_columns, int64_t box_rows) {
  // A single row has any stride, but a map is asked for a good one.
  const int64_t size = SizeOf(matrix.dtype);
  const int64_t stride_bytes = matrix.num_rows == 1 ? RoundUp(matrix.size * size, 16) : matrix.stride * size;
  return {.base = matrix.data,
          .dtype = matrix.dtype,
          .rank = 2,
          .size = {static_cast<uint64_t>(matrix.size), static_cast<uint64_t>(matrix.num_rows)},
          .stride_bytes = {static_cast<uint64_t>(stride_bytes)},
          .box = {static_cast<uint32_t>(box_columns), static_cast<uint32_t>(box_rows)}};
}

// Of the rows of a tile; of a gated product 8 rows of gate and of up in turn.
inline TensorMapShape WeightShape(const HeddleCudaMatrix& matrix, int64_t box_columns, bool gated) {
  if (!gated) return RowsShape(matrix, box_columns, kTileWeightRows);
  const auto stride_bytes = static_cast<uint64_t>(matrix.stride * SizeOf(matrix.dtype));
  const auto rows = static_cast<uint64_t>(matrix.num_rows / 2);
  return {.base = matrix.data,
          .dtype = matrix.dtype,
          .rank = 4,
          .size = {static_cast<uint64_t>(matrix.size), 8, 2, rows / 8},
          .stride_bytes = {stride_bytes, rows * stride_bytes, 8 * stride_bytes},
          .box = {static_cast<uint32_t>(box_columns), 8, 2, kTileWeightRows / 16}};
}

inline HeddleCudaMatrix MetadataOf(const HeddleCudaWeight& weight) {
  return {const_cast<uint8_t*>(weight.metadata), kHeddleCudaInt8, weight.values.num_rows, weight.values.size / 4,
          weight.metadata_stride};
}

template <class Products>
void LaunchTiles(const HeddleCudaStream& stream, const TileProduct& product) {
  const HeddleCudaMatrix& x = product.x;
  const HeddleCudaMatrix& y = product.y;
  TileParameters p{};
  p.row_scales = product.row_scales;
  p.scales = product.weight.scales;
  p.bias = product.bias;
  p.y_data = y.data;
  p.y_stride = y.stride;
  p.y_dtype = y.dtype;
  p.num_rows = static_cast<int>(y.num_rows);
  p.num_outputs = static_cast<int>(y.size);
  p.gated = product.gated;
  p.activation = product.activation;
  p.counters = stream.counters;
  p.partial_sums = product.scratch;
  p.x = TensorMapOf(RowsShape(x, Products::kXBoxElements, Products::kXRows));
  p.weight = TensorMapOf(WeightShape(product.weight.values, Products::kValues, product.gated));
  if constexpr (Products::kMetadataRowBytes > 0) {
    p.metadata = TensorMapOf(WeightShape(MetadataOf(product.weight), Products::kMetadataRowBytes, product.gated));
  }
  const TileDivision division = DivideTiles<Products>(stream, product);
  p.num_steps = division.num_steps;
  p.num_x_tiles = division.num_x_tiles;
  p.num_tiles = division.num_tiles;
  p.last_box_rows = static_cast<int>(RoundUp(y.num_rows - int64_t{division.num_x_tiles - 1} * Products::kXRows, 8));
  p.last_x = TensorMapOf(RowsShape(x, Products::kXBoxElements, p.last_box_rows));
  p.num_splits = division.num_splits;
  p.num_shared_tiles = division.num_shared_tiles;
  if constexpr (Products::kHasOutliers) {
    p.num_panels = product.outliers.num_panels;
    p.panels = product.outliers.panels;
  }
  if (y.dtype != kHeddleCudaFloat32) {
    p.y = TensorMapOf(RowsShape(y, product.gated ? 32 : 64, kStoredBoxRows));
  }

  const int left = stream.properties.shared_bytes_per_block - TileSharedBytes<Products>(0);
  p.num_stages = std::min(left / Products::kStageBytes, kMaxTileStages);
  const int shared_bytes = TileSharedBytes<Products>(p.num_stages);
  const auto kernel = TileKernel<Products>;
  AllowShared(kernel, shared_bytes);
  LaunchClusters(stream, kernel, p.num_splits, dim3(division.num_blocks), dim3(kTileThreads), shared_bytes, p);
}

// Of these kinds, which differ in rows of x, the one that takes the shortest.
template <class... Products>
struct Cheapest {
  // Among those with so many rows or fewer; the first one has.
  static int Rows(const HeddleCudaStream& stream, const TileProduct& product, int most_rows = kMaxTileXRows) {
    const auto time = [&]<class Kind>() {
      return Kind::kXRows <= most_rows ? DivideTiles<Kind>(stream, product).microseconds
                                       : std::numeric_limits<double>::infinity();
    };
    const double times[] = {time.template operator()<Products>()...};
    return kRows[std::min_element(std::begin(times), std::end(times)) - std::begin(times)];
  }
  static void Launch(const HeddleCudaStream& stream, const TileProduct& product) {
    LaunchWith(Rows(stream, product), stream, product);
  }
  // The one that has so many rows.
  static void LaunchWith(int rows, const HeddleCudaStream& stream, const TileProduct& product) {
    constexpr void (*kLaunches[])(const HeddleCudaStream&, const TileProduct&) = {LaunchTiles<Products>...};
    kLaunches[std::find(std::begin(kRows), std::end(kRows), rows) - std::begin(kRows)](stream, product);
  }

 private:
  static constexpr int kRows[sizeof...(Products)] = {Products::kXRows...};
};

}  // namespace heddle::cuda
