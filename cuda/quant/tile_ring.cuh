// A block's ring of stages in shared memory, each a step of its tile's weights and of its rows of x, and the warp that
// fills it.
#pragma once

#include "common/hopper.cuh"
#include "common/launch.h"
#include "quant/tile_product.h"
#include "quant/tile_schedule.cuh"

namespace heddle::cuda {

struct TileBarriers {
  hopper::Barrier full[kMaxTileStages];
  hopper::Barrier empty[kMaxTileStages];
};

// A place in the ring, and the parity of the phase that its barriers are in.
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void Advance(int num_stages) {
    if (++stage == num_stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

// Shared memory of a block: the ring, what the consumers store from, barriers.
template <class Products>
constexpr int TileSharedBytes(int num_stages) {
  constexpr int kAlignment = 1024;
  return kAlignment + num_stages * Products::kStageBytes + kTileConsumers * StoreBytes(Products::kXRows) +
         static_cast<int>(sizeof(TileBarriers)) + kTileConsumers * static_cast<int>(sizeof(uint32_t));
}

template <class Products>
class TileRing {
 public:
  __device__ __forceinline__ TileRing(const TileParameters& p, uint8_t* shared, TileBarriers& barriers)
      : p_(p), shared_(shared), barriers_(barriers), schedule_(p) {}

  __device__ __forceinline__ const TileSchedule& schedule() const { return schedule_; }

  // By one thread, before others do anything.
  __device__ __forceinline__ void InitBarriers() {
    for (int i = 0; i < p_.num_stages; ++i) {
      hopper::InitBarrier(&barriers_.full[i], 1);
      hopper::InitBarrier(&barriers_.empty[i], kTileConsumers * 4);
    }
    hopper::FenceBarrierInit();
    hopper::FenceAsyncProxy();
  }

  // By one thread. Weights before the kernels ahead have ended, as many of the first piece's as the ring holds.
  __device__ __forceinline__ void Produce() {
    const uint64_t policy = p_.num_x_tiles == 1 ? ReadOncePolicy() : KeepPolicy();
    TileSchedule schedule = schedule_;
    TilePiece piece;
    if (!schedule.Next(piece)) return WaitForPrevious();
    RingPosition position;
    int early = min(p_.num_stages, piece.end - piece.begin);
    for (int i = 0; i < early; ++i) {
      CopyWeights(piece, piece.begin + i, position, policy);
      position.Advance(p_.num_stages);
    }
    WaitForPrevious();
    position = {};
    do {
      for (int step = piece.begin; step < piece.end; ++step) {
        if (early > 0) {
          --early;
        } else {
          WaitUntilFree(position);
          CopyWeights(piece, step, position, policy);
        }
#pragma unroll
        for (int box = 0; box < Products::kXBoxes; ++box) {
          CopyX(p_.x, piece, (step * Products::kXBoxes + box) * Products::kXBoxElements, box, position);
        }
        position.Advance(p_.num_stages);
      }
      if constexpr (Products::kHasOutliers) CopyOutliers(piece, position, policy);
    } while (schedule.Next(piece));
  }

  // Parts of the tile's outliers that are multiplied after the piece's steps: they go round among the blocks of a
  // cluster.
  __device__ __forceinline__ int NumOutlierParts(const TilePiece& piece) const {
    const int all = __ldcg(p_.num_outlier_parts + piece.x_tile);
    return (all - Rank() + p_.num_splits - 1) / p_.num_splits;
  }
  // Of the block in its cluster.
  __device__ __forceinline__ int Rank() const { return static_cast<int>(blockIdx.x) % p_.num_splits; }

  // By all threads of a warp.
  __device__ __forceinline__ void WaitForStage(const RingPosition& position) {
    hopper::Wait(&barriers_.full[position.stage], position.parity);
  }
  __device__ __forceinline__ void Release(const RingPosition& position) {
    if (threadIdx.x % 32 == 0) hopper::Arrive(&barriers_.empty[position.stage]);
  }

  __device__ __forceinline__ uint8_t* Stage(const RingPosition& position) const {
    return shared_ + position.stage * Products::kStageBytes;
  }

 private:
  __device__ __forceinline__ void WaitUntilFree(const RingPosition& position) {
    hopper::Wait(&barriers_.empty[position.stage], position.parity ^ 1);
  }

  __device__ __forceinline__ void CopyWeights(const TilePiece& piece, int step, const RingPosition& position,
                                              uint64_t policy) {
    hopper::ArriveAndExpect(&barriers_.full[position.stage], Products::kStageBytes);
    CopyWeightRows(p_.weight, Stage(position), piece, step * Products::kValues, position, policy);
    CopyMetadata(piece, step * Products::kMetadataRowBytes, position, policy);
  }

  // From this byte of a row on, where there is any.
  __device__ __forceinline__ void CopyMetadata(const TilePiece& piece, int byte, const RingPosition& position,
                                               uint64_t policy) {
    if constexpr (Products::kMetadataRowBytes > 0) {
      CopyWeightRows(p_.metadata, Stage(position) + Products::kMetadataBegin, piece, byte, position, policy);
    }
  }

  __device__ __forceinline__ void CopyWeightRows(const CUtensorMap& map, uint8_t* to, const TilePiece& piece,
                                                 int column, const RingPosition& position, uint64_t policy) {
    hopper::Barrier* const full = &barriers_.full[position.stage];
    const int tile = piece.weight_tile;
    if (p_.gated) {
      hopper::CopyBoxWith(policy, to, map, full, column, 0, 0, tile * (kTileWeightRows / 16));
    } else {
      hopper::CopyBoxWith(policy, to, map, full, column, tile * kTileWeightRows);
    }
  }

  __device__ __forceinline__ void CopyX(const CUtensorMap& map, const TilePiece& piece, int column, int box,
                                        const RingPosition& position) {
    uint8_t* const to = Stage(position) + Products::kWeightBytes + box * Products::kXBoxBytes;
    hopper::CopyBox(to, map, &barriers_.full[position.stage], column, piece.x_tile * Products::kXRows);
  }

  __device__ __forceinline__ void CopyOutliers(const TilePiece& piece, RingPosition& position, uint64_t policy) {
    const int num_parts = NumOutlierParts(piece);
    const int32_t* const parts = p_.outlier_parts + int64_t{piece.x_tile} * p_.outlier_stride + Rank();
    constexpr int kColumns = Products::kOutlierColumns;
    constexpr int kBoxes = kColumns / 64;
    constexpr int kBytes = kTileWeightRows * kOutlierValues + kBoxes * Products::kXBoxBytes + Products::kMetadataBytes;
    for (int i = 0; i < num_parts; ++i) {
      const int part = __ldcg(parts + i * p_.num_splits);
      WaitUntilFree(position);
      hopper::ArriveAndExpect(&barriers_.full[position.stage], kBytes);
      CopyWeightRows(p_.outlier_weight, Stage(position), piece, part * kOutlierValues, position, policy);
      CopyMetadata(piece, part * kColumns / 8, position, policy);
#pragma unroll
      for (int box = 0; box < kBoxes; ++box) CopyX(p_.outliers, piece, part * kColumns + box * 64, box, position);
      position.Advance(p_.num_stages);
    }
  }

  const TileParameters& p_;
  uint8_t* const shared_;
  TileBarriers& barriers_;
  const TileSchedule schedule_;
};

}  // namespace heddle::cuda
