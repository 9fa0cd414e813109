// How a product becomes tiles and blocks: of the ways there are, the one that should take the shortest.
//
// The times were fitted to those of all ways on an H100 80GB, by the products of an 8B model with 32 to 256 rows of x.
// What is chosen by them took 1 to 2.5 % longer there, on average, than the fastest.
#pragma once

#include <algorithm>

#include "common/rounding.h"
#include "common/stream.h"
#include "quant/tile_products.cuh"

namespace heddle::cuda {

struct TileDivision {
  int num_x_tiles;
  int num_tiles;
  int num_steps;         // of a tile
  int num_splits;        // blocks of a cluster, which have a tile together
  int num_shared_tiles;  // the first ones, which all blocks share out along k
  int num_blocks;
  double microseconds;
};

// Of the memory that partial sums take.
template <class Products>
int64_t SumsBytes(int num_blocks) {
  return int64_t{num_blocks} * 2 * kTileWeightRows * Products::kXRows * 4;
}

// Of a step of one of so many blocks that read at the same time: as long as its weight takes to arrive, and
// kXRowMicroseconds for each row of x.
template <class Products>
constexpr double StepMicroseconds(int num_blocks) {
  constexpr double kBytesOfAll = 3.26e6;  // a microsecond
  constexpr double kBytesOfBlock = 40e3;
  constexpr int kBytes = Products::kWeightBytes + Products::kMetadataBytes;
  return kBytes / std::min(kBytesOfAll / num_blocks, kBytesOfBlock) + Products::kXRows * Products::kXRowMicroseconds;
}

// Tiles one after another by each block, or by each cluster.
template <class Products>
TileDivision InTurns(TileDivision division, int most_blocks, int num_splits) {
  constexpr double kExchange = Products::kXRows == 256 ? 8.0 : 4.0;
  division.num_splits = num_splits;
  division.num_blocks = std::min(division.num_tiles * num_splits, most_blocks / num_splits * num_splits);
  const int64_t turns = CeilDiv(int64_t{division.num_tiles} * num_splits, division.num_blocks);
  const auto steps = static_cast<double>(turns * CeilDiv(division.num_steps, num_splits));
  division.microseconds = steps * StepMicroseconds<Products>(division.num_blocks) + (num_splits > 1 ? kExchange : 0.0);
  return division;
}

// The tiles that do not go round evenly, with a tile more for each block, so that none is cut into many pieces.
template <class Products>
TileDivision Shared(TileDivision division, int most_blocks) {
  constexpr double kJoin = 7.0;
  constexpr double kJoinOfXRow = 0.08;
  division.num_splits = 1;
  // Each has a step at least.
  const int64_t steps = int64_t{division.num_tiles} * division.num_steps;
  division.num_blocks = static_cast<int>(std::min<int64_t>(most_blocks, steps));
  const int rest = division.num_tiles % division.num_blocks;
  division.num_shared_tiles = std::min(division.num_tiles, rest + division.num_blocks);
  division.microseconds =
      static_cast<double>(CeilDiv(steps, division.num_blocks)) * StepMicroseconds<Products>(division.num_blocks) +
      kJoin + kJoinOfXRow * Products::kXRows;
  return division;
}

template <class Products>
TileDivision DivideTiles(const HeddleCudaStream& stream, const TileProduct& product) {
  const int most_blocks = stream.properties.num_multiprocessors;
  TileDivision tiles{};
  const int outputs_of_tile = kTileWeightRows / (product.gated ? 2 : 1);
  tiles.num_x_tiles = static_cast<int>(CeilDiv(product.y.num_rows, Products::kXRows));
  tiles.num_tiles = static_cast<int>(CeilDiv(product.y.size, outputs_of_tile) * tiles.num_x_tiles);
  tiles.num_steps = static_cast<int>(CeilDiv(product.x.size, Products::kXBoxes * Products::kXBoxElements));

  TileDivision best = InTurns<Products>(tiles, most_blocks, 1);
  const auto consider = [&](const TileDivision& other) {
    if (other.microseconds < best.microseconds) best = other;
  };
  // A cluster that finds no place waits for one to end, which doubles the time.
  const auto has_places = [&](int num_splits, int most_clusters) {
    return CanSplit<Products>(num_splits) && tiles.num_steps >= 2 * num_splits && tiles.num_tiles <= most_clusters;
  };
  if (has_places(2, stream.properties.most_clusters_of_2)) consider(InTurns<Products>(tiles, most_blocks, 2));
  if (has_places(4, stream.properties.most_clusters_of_4)) consider(InTurns<Products>(tiles, most_blocks, 4));
  if (tiles.num_tiles % most_blocks != 0 && SumsBytes<Products>(most_blocks) <= product.scratch_bytes) {
    consider(Shared<Products>(tiles, most_blocks));
  }
  return best;
}

}  // namespace heddle::cuda
