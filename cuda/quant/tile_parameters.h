// What the host tells the kernel of tile_kernel.cuh, and the units in which both count.
//
// A tile is 128 rows of the weight by some rows of x, and all of k, which is cut into steps. Blocks take whole tiles,
// in turn. Where there are few, a cluster of blocks has a tile, each a part of k. Where they go round unevenly, some
// are cut along k in another way, so that all blocks have as much to do; their sums meet in global memory.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "heddle_cuda.h"

namespace heddle::cuda {

inline constexpr int kTileWeightRows = 128;
inline constexpr int kBoxRowBytes = 128;  // of x
inline constexpr int kTileConsumers = 2;  // warpgroups, each with 64 rows of the weight
inline constexpr int kTileThreads = (kTileConsumers + 1) * 128;
inline constexpr int kMaxTileStages = 12;
// Rows of x whose outputs are stored at once, of 64 outputs or fewer of 16 bits, from a buffer of a warpgroup. It has
// two, but for tiles of 256 rows, where the ring needs the room more.
constexpr int StoredRows(int x_rows) { return x_rows < 64 ? x_rows : 64; }
inline constexpr int kStoredBoxRows = 16;  // of these, those of a box
constexpr int StoreBufferBytes(int x_rows) { return StoredRows(x_rows) * 128; }
constexpr int NumStoreBuffers(int x_rows) { return x_rows == 256 ? 1 : 2; }
constexpr int StoreBytes(int x_rows) { return NumStoreBuffers(x_rows) * StoreBufferBytes(x_rows); }

struct TileParameters {
  CUtensorMap x;            // boxes of a tile's rows of x
  CUtensorMap last_x;       // the same of the last tile, whose boxes have fewer
  CUtensorMap weight;       // boxes of a tile's rows; of a gated one 8 of the gate, then 8 of up, 8 times
  CUtensorMap metadata;     // of a 2:4 weight, in boxes like the weight's
  CUtensorMap y;            // boxes of kStoredBoxRows, of 64 outputs, or 32 if gated; unless float32
  const float* row_scales;  // of x, for whole tiles of rows; null: 1
  const float* scales;      // of the weight's rows; null: 1
  const float* bias;        // may be null
  void* y_data;
  int64_t y_stride;  // elements
  HeddleCudaDType y_dtype;
  int num_rows;     // of x and y
  int num_outputs;  // elements of a row of y; a gated product has twice as many weight rows
  bool gated;
  HeddleCudaActivation activation;
  int num_stages;     // of the ring
  int num_steps;      // of a tile
  int num_splits;     // blocks of a cluster: 1, 2 or 4
  int last_box_rows;  // of last_x
  int num_x_tiles;    // tile t has weight rows of tile t / num_x_tiles, rows of x of tile t % num_x_tiles
  int num_tiles;
  int num_shared_tiles;  // the first ones, cut along k, where a cluster is one block
  uint32_t* counters;    // for each consumer of each shared tile, zero between ops
  void* partial_sums;    // [blocks, 2, consumers, 64 * rows of x]: of pieces of shared tiles
  // Where products have outliers: see Outliers. Its groups are tiles of rows of x.
  const uint8_t* num_panels;
  const uint8_t* panels;
};

}  // namespace heddle::cuda
