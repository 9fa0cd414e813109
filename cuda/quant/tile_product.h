// One launch of tile_kernel.cuh, for each kind of weight.
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

// What QuantizeRowsButOutliers leaves of x beside its int8. Its rows are in groups, those of a tile, and its columns in
// steps; of each group's step, those columns in which any of the rows has an outlier are panels: see outlier_panel.h.
struct Outliers {
  HeddleCudaDType dtype;
  int rows_of_group;    // a power of two from 16 on
  int columns_of_step;  // 128 or 256
  uint8_t* num_panels;  // [groups, PanelCountStride(steps)]
  uint8_t* panels;      // [groups, steps]: see PanelOffset
};

// Matmul or GatedMatmul, for all of x at once.
struct TileProduct {
  HeddleCudaMatrix x;       // as the kernel reads it: T or int8
  const float* row_scales;  // of x, for whole tiles of rows; null: 1
  Outliers outliers;        // for LaunchOutlierTiles alone
  HeddleCudaWeight weight;
  const float* bias;  // may be null
  HeddleCudaMatrix y;
  bool gated;  // then y has a multiple of 8 columns
  HeddleCudaActivation activation;
  void* scratch;  // for sums of tiles that are cut along k; where it does not suffice none is
  int64_t scratch_bytes;
};

// Rows of x that a product may read scales for, beyond its last: tiles have so many or fewer.
inline constexpr int kMaxTileXRows = 256;

// Int8 weights by int8 x; the former where this has up to kMaxSkinnyRows rows.
void LaunchInt8Skinny(const HeddleCudaStream& stream, const TileProduct& product);
void LaunchInt8Tiles(const HeddleCudaStream& stream, const TileProduct& product);
// Int8 weights by int8 x and its outliers, in groups and steps of these sizes.
inline constexpr int kColumnsOfStep = 128;
int RowsOfOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product, int most_rows);
void LaunchOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product);
// Int8 weights by x of T.
void LaunchConvertedTiles(const HeddleCudaStream& stream, const TileProduct& product);

// The same of 2:4 weights, and of those whose values are T.
void LaunchSparseInt8Tiles(const HeddleCudaStream& stream, const TileProduct& product);
inline constexpr int kSparseColumnsOfStep = 256;
int RowsOfSparseOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product, int most_rows);
void LaunchSparseOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product);
void LaunchSparseConvertedTiles(const HeddleCudaStream& stream, const TileProduct& product);
void LaunchSparseTiles(const HeddleCudaStream& stream, const TileProduct& product);

}  // namespace heddle::cuda
