// A block's ring of stages in shared memory, each a step of its tile's weights and of its rows of x, or of its panels
// of outliers in the place of these, and the warp that fills it.
#pragma once

#include "common/hopper.cuh"
#include "common/launch.h"
#include "quant/outlier_panel.h"
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

// Where the panels of a step of a tile of rows of x begin.
template <class Products>
__device__ __forceinline__ const uint8_t* PanelsOf(const TileParameters& p, int x_tile, int step) {
  return p.panels + PanelOffset(x_tile, p.num_steps, step, Products::kStepColumns, Products::kXRows);
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
          CopyX(piece, (step * Products::kXBoxes + box) * Products::kXBoxElements, box, position);
        }
        position.Advance(p_.num_stages);
      }
      if constexpr (Products::kPanelsAfter) CopyPanels(piece, position, policy);
    } while (schedule.Next(piece));
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
    const int x_bytes = Products::kXBoxes * (IsLast(piece) ? p_.last_box_rows * kBoxRowBytes : Products::kXBoxBytes);
    hopper::ArriveAndExpect(&barriers_.full[position.stage],
                            Products::kWeightBytes + Products::kMetadataBytes + x_bytes);
    CopyWeightsOfStep(piece, step, position, policy);
  }

  // Panels of the piece's steps, with the weights of these.
  __device__ __forceinline__ void CopyPanels(const TilePiece& piece, RingPosition& position, uint64_t policy) {
    const auto* const counts =
        reinterpret_cast<const uint4*>(p_.num_panels + piece.x_tile * PanelCountStride(p_.num_steps));
    const int last = (piece.end - 1) / 16;
    int index = piece.begin / 16;
    uint4 next = __ldcg(counts + index);
    for (; index <= last; ++index) {
      uint4 words = next;
      next = __ldcg(counts + min(index + 1, last));
      for (int step = index * 16; step < index * 16 + 16; ++step) {
        if (step >= piece.begin && step < piece.end) CopyPanels(piece, step, words.x & 0xff, position, policy);
        words = {__funnelshift_r(words.x, words.y, 8), __funnelshift_r(words.y, words.z, 8),
                 __funnelshift_r(words.z, words.w, 8), words.w >> 8};
      }
    }
  }

  __device__ __forceinline__ void CopyPanels(const TilePiece& piece, int step, int count, RingPosition& position,
                                             uint64_t policy) {
    constexpr int kPanelBytes = PanelBytes(Products::kXRows);
    const uint8_t* panels = PanelsOf<Products>(p_, piece.x_tile, step);
    for (int rest = count; rest > 0; rest -= Products::kPanelsOfStage) {
      hopper::Barrier* const full = &barriers_.full[position.stage];
      const int bytes = min(rest, Products::kPanelsOfStage) * kPanelBytes;
      WaitUntilFree(position);
      hopper::ArriveAndExpect(full, Products::kWeightBytes + Products::kMetadataBytes + bytes);
      CopyWeightsOfStep(piece, step, position, policy);
      hopper::CopyBytes(Stage(position) + Products::kWeightBytes, panels, bytes, full);
      panels += bytes;
      position.Advance(p_.num_stages);
    }
  }

  __device__ __forceinline__ void CopyWeightsOfStep(const TilePiece& piece, int step, const RingPosition& position,
                                                    uint64_t policy) {
    CopyWeightRows(p_.weight, Stage(position), piece, step * Products::kValues, position, policy);
    if constexpr (Products::kMetadataRowBytes > 0) {
      CopyWeightRows(p_.metadata, Stage(position) + Products::kMetadataBegin, piece, step * Products::kMetadataRowBytes,
                     position, policy);
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

  // Of the rows of x.
  __device__ __forceinline__ bool IsLast(const TilePiece& piece) const { return piece.x_tile == p_.num_x_tiles - 1; }

  // Rows beyond x's last are not copied as zeros, which takes longer than rows do: none of their sums goes to y.
  __device__ __forceinline__ void CopyX(const TilePiece& piece, int column, int box, const RingPosition& position) {
    uint8_t* const to = Stage(position) + Products::kWeightBytes + box * Products::kXBoxBytes;
    hopper::CopyBox(to, IsLast(piece) ? p_.last_x : p_.x, &barriers_.full[position.stage], column,
                    piece.x_tile * Products::kXRows);
  }

  const TileParameters& p_;
  uint8_t* const shared_;
  TileBarriers& barriers_;
  const TileSchedule schedule_;
};

}  // namespace heddle::cuda
