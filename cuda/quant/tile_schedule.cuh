// Who computes which steps of which tile. Every thread of a block counts through the same pieces.
#pragma once

#include "quant/tile_parameters.h"

namespace heddle::cuda {

struct TilePiece {
  int tile;
  int begin;  // steps
  int end;
  // Of the tile: found once, for to divide at every step would take as long as to copy.
  int weight_tile;
  int x_tile;
};

class TileSchedule {
 public:
  __device__ __forceinline__ explicit TileSchedule(const TileParameters& p)
      : p_(p),
        num_blocks_(static_cast<int>(gridDim.x)),
        position_(BeginOf(static_cast<int>(blockIdx.x))),
        end_(BeginOf(static_cast<int>(blockIdx.x) + 1)),
        whole_(static_cast<int>(blockIdx.x)) {}

  // The next piece; false when there is none.
  __device__ __forceinline__ bool Next(TilePiece& piece) {
    if (p_.num_splits > 1) {
      const int rank = whole_ % p_.num_splits;
      piece = PieceOf(whole_ / p_.num_splits, rank * p_.num_steps / p_.num_splits,
                      (rank + 1) * p_.num_steps / p_.num_splits);
      whole_ += num_blocks_;
      return piece.tile < p_.num_tiles;
    }
    if (NextShared(piece)) return true;
    piece = PieceOf(p_.num_shared_tiles + whole_, 0, p_.num_steps);
    whole_ += num_blocks_;
    return piece.tile < p_.num_tiles;
  }

  // Of the tiles that are shared out, which come first.
  __device__ __forceinline__ bool NextShared(TilePiece& piece) {
    if (position_ == end_) return false;
    const int tile = position_ / p_.num_steps;
    const int begin = position_ - tile * p_.num_steps;
    piece = PieceOf(tile, begin, min(p_.num_steps, begin + end_ - position_));
    position_ += piece.end - piece.begin;
    return true;
  }

  __device__ __forceinline__ bool IsWhole(const TilePiece& piece) const {
    return piece.begin == 0 && piece.end == p_.num_steps;
  }
  // Blocks that have a piece of a shared tile: all from the first to the last.
  __device__ __forceinline__ int FirstBlock(int tile) const { return BlockOf(tile * p_.num_steps); }
  __device__ __forceinline__ int LastBlock(int tile) const { return BlockOf((tile + 1) * p_.num_steps - 1); }

 private:
  __device__ __forceinline__ TilePiece PieceOf(int tile, int begin, int end) const {
    return {tile, begin, end, tile / p_.num_x_tiles, tile % p_.num_x_tiles};
  }
  __device__ __forceinline__ int64_t Total() const { return int64_t{p_.num_shared_tiles} * p_.num_steps; }
  __device__ __forceinline__ int BeginOf(int block) const { return static_cast<int>(block * Total() / num_blocks_); }
  __device__ __forceinline__ int BlockOf(int step) const {
    return static_cast<int>(((step + int64_t{1}) * num_blocks_ - 1) / Total());
  }

  const TileParameters& p_;
  const int num_blocks_;
  int position_;
  const int end_;
  int whole_;
};

}  // namespace heddle::cuda
