// One launch of tile_kernel.cuh, for each kind of weight.
#pragma once

#include "common/stream.h"

namespace heddle::cuda {

// What QuantizeRows leaves of x beside its int8: T where an element is an outlier, else zero; and which parts of so
// many columns have any, for groups of so many rows.
struct Outliers {
  HeddleCudaMatrix values;
  int64_t columns_of_part;
  int64_t rows_of_group;
  int32_t* num_parts;  // [groups]
  int32_t* parts;      // [groups, parts of a row], in ascending order
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
inline constexpr int64_t kMaxTileXRows = 256;

// Int8 weights by int8 x; the former where this has up to kMaxSkinnyRows rows.
void LaunchInt8Skinny(const HeddleCudaStream& stream, const TileProduct& product);
void LaunchInt8Tiles(const HeddleCudaStream& stream, const TileProduct& product);
// Int8 weights by int8 x and its outliers, in groups and parts of these sizes.
inline constexpr int kOutlierColumns = 64;
int64_t RowsOfOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product);
void LaunchOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product);
// Int8 weights by x of T.
void LaunchConvertedTiles(const HeddleCudaStream& stream, const TileProduct& product);

// The same of 2:4 weights, and of those whose values are T.
void LaunchSparseInt8Tiles(const HeddleCudaStream& stream, const TileProduct& product);
inline constexpr int kSparseOutlierColumns = 128;
int64_t RowsOfSparseOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product);
void LaunchSparseOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product);
void LaunchSparseConvertedTiles(const HeddleCudaStream& stream, const TileProduct& product);
void LaunchSparseTiles(const HeddleCudaStream& stream, const TileProduct& product);

}  // namespace heddle::cuda
