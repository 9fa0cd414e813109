// How a product becomes tiles, and what their kernel is told.
#pragma once

#include <algorithm>
#include <iterator>

#include "common/checks.h"
#include "common/rounding.h"
#include "common/tensor_map.h"
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

// Of a product: tiles, steps of each, and blocks of a cluster for one, as many as leave none waiting and have some
// steps.
struct TileGrid {
  int num_x_tiles;
  int num_tiles;
  int num_steps;
  int num_splits;
};

template <class Products>
TileGrid TileGridOf(const TileProduct& product, int num_blocks) {
  TileGrid grid{};
  const int outputs_of_tile = kTileWeightRows / (product.gated ? 2 : 1);
  grid.num_x_tiles = static_cast<int>(CeilDiv(product.y.num_rows, Products::kXRows));
  grid.num_tiles = static_cast<int>(CeilDiv(product.y.size, outputs_of_tile) * grid.num_x_tiles);
  grid.num_steps = static_cast<int>(CeilDiv(product.x.size, Products::kXBoxes * Products::kXBoxElements));
  grid.num_splits = 1;
  for (const int splits : {2, 4}) {
    if (CanSplit<Products>(splits) && grid.num_tiles * splits <= num_blocks && grid.num_steps >= 2 * splits)
      grid.num_splits = splits;
  }
  return grid;
}

// Tiles that are cut along k: none where most blocks have work in every turn; else those that do not go round evenly,
// with a tile more for each block, so that none is cut into many pieces.
inline int SharedTiles(int num_tiles, int num_blocks) {
  const int64_t places = RoundUp(num_tiles, num_blocks);
  if (num_tiles * 10 >= places * 7) return 0;
  return std::min(num_tiles, num_tiles % num_blocks + num_blocks);
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
  const int most_blocks = stream.properties.num_multiprocessors;
  const TileGrid grid = TileGridOf<Products>(product, most_blocks);
  p.num_steps = grid.num_steps;
  p.num_x_tiles = grid.num_x_tiles;
  p.num_tiles = grid.num_tiles;
  p.num_splits = grid.num_splits;
  // Each has a step at least.
  int num_blocks = static_cast<int>(std::min<int64_t>(most_blocks, int64_t{p.num_tiles} * p.num_steps));
  if (p.num_splits == 1) p.num_shared_tiles = SharedTiles(p.num_tiles, num_blocks);
  int64_t sums_bytes = int64_t{num_blocks} * 2 * kTileWeightRows * Products::kXRows * 4;
  if constexpr (Products::kHasOutliers) {
    const Outliers& outliers = product.outliers;
    p.outliers = TensorMapOf(RowsShape(outliers.values, 64, Products::kXRows));
    p.num_outlier_parts = outliers.num_parts;
    p.outlier_parts = outliers.parts;
    p.outlier_stride = static_cast<int>(CeilDiv(x.size, outliers.columns_of_part));
    p.outlier_sums = static_cast<unsigned char*>(product.scratch) + sums_bytes;
    sums_bytes *= 2;
  }
  if (sums_bytes > product.scratch_bytes) p.num_shared_tiles = 0;
  if (p.num_shared_tiles == 0) num_blocks = std::min(num_blocks, p.num_tiles * p.num_splits);
  if (y.dtype != kHeddleCudaFloat32) {
    p.y = TensorMapOf(RowsShape(y, product.gated ? 32 : 64, StoredRows(Products::kXRows / p.num_splits)));
  }

  const int left = stream.properties.shared_bytes_per_block - TileSharedBytes<Products>(0);
  p.num_stages = std::min(left / Products::kStageBytes, kMaxTileStages);
  const int shared_bytes = TileSharedBytes<Products>(p.num_stages);
  const auto kernel = TileKernel<Products>;
  AllowShared(kernel, shared_bytes);
  LaunchClusters(stream, kernel, p.num_splits, dim3(num_blocks), dim3(kTileThreads), shared_bytes, p);
}

// How long a product takes that is bound by what its blocks copy: bytes of the busiest one.
template <class Products>
int64_t TileCost(const TileProduct& product, int num_blocks) {
  constexpr int64_t kBytesOfBeginning = int64_t{128} << 10;
  constexpr int64_t kBytesOfSums = int64_t{kTileWeightRows} * Products::kXRows * 4;
  const TileGrid grid = TileGridOf<Products>(product, num_blocks);
  const int64_t all_steps = int64_t{grid.num_tiles} * grid.num_steps;
  if (SharedTiles(grid.num_tiles, num_blocks) > 0 && grid.num_splits == 1) {
    return CeilDiv(all_steps, num_blocks) * Products::kStageBytes + 4 * kBytesOfSums + 3 * kBytesOfBeginning;
  }
  const int64_t turns = CeilDiv(int64_t{grid.num_tiles} * grid.num_splits, num_blocks);
  const int64_t exchange = grid.num_splits == 1 ? 0 : kBytesOfSums + kBytesOfBeginning / 2;
  return turns * (CeilDiv(grid.num_steps, grid.num_splits) * Products::kStageBytes + kBytesOfSums / 2 + exchange) +
         kBytesOfBeginning;
}

// Of these kinds, which differ in rows of x, the one that takes the shortest.
template <class... Products>
struct Cheapest {
  static int Of(const HeddleCudaStream& stream, const TileProduct& product) {
    const int64_t costs[] = {TileCost<Products>(product, stream.properties.num_multiprocessors)...};
    return static_cast<int>(std::min_element(std::begin(costs), std::end(costs)) - std::begin(costs));
  }
  static int64_t Rows(const HeddleCudaStream& stream, const TileProduct& product) {
    constexpr int64_t kRows[] = {Products::kXRows...};
    return kRows[Of(stream, product)];
  }
  static void Launch(const HeddleCudaStream& stream, const TileProduct& product) {
    constexpr void (*kLaunches[])(const HeddleCudaStream&, const TileProduct&) = {LaunchTiles<Products>...};
    kLaunches[Of(stream, product)](stream, product);
  }
};

}  // namespace heddle::cuda
