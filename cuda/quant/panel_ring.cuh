// Outliers of x on their way to the consumers: a ring of panels beside that of steps, filled by a warp of its own.
#pragma once

#include "common/rounding.h"
#include "quant/outlier_panel.h"
#include "quant/tile_ring.cuh"

namespace heddle::cuda {

inline constexpr int kMaxPanelSlots = 16;

struct PanelBarriers {
  hopper::Barrier full[kMaxPanelSlots];
  hopper::Barrier empty[kMaxPanelSlots];
};

// How many panels the steps of a piece have, each asked for once, in order. By all threads of a warp: each lane holds
// the number of one step, and that of the one 32 later, so that nobody waits for memory.
class PanelCounts {
 public:
  __device__ __forceinline__ explicit PanelCounts(const TileParameters& p) : p_(p) {}

  __device__ __forceinline__ void Begin(int x_tile, int step) {
    counts_ = p_.num_panels + x_tile * PanelCountStride(p_.num_steps);
    first_ = step;
    held_ = Load(step);
    next_ = Load(step + 32);
  }

  __device__ __forceinline__ int Of(int step) {
    if (step == first_ + 32) {
      first_ = step;
      held_ = next_;
      next_ = Load(step + 32);
    }
    return static_cast<int>(__shfl_sync(0xffffffffu, held_, step - first_));
  }

 private:
  __device__ __forceinline__ uint32_t Load(int first) const {
    const int step = first + static_cast<int>(threadIdx.x) % 32;
    return step < p_.num_steps ? __ldcg(counts_ + step) : 0;
  }

  const TileParameters& p_;
  const uint8_t* counts_ = nullptr;
  int first_ = 0;
  uint32_t held_ = 0;
  uint32_t next_ = 0;
};

template <class Products>
class PanelRing {
 public:
  // As many steps ahead as the ring of steps is, with a panel or somewhat more for each.
  static constexpr int kSlots = Products::kXRows <= 32 ? 16 : Products::kXRows == 64 ? 12 : 8;
  static_assert(kSlots >= 2 && kSlots <= kMaxPanelSlots);  // a panel is waited for before the one ahead is released
  static constexpr int kPanelBytes = PanelBytes(Products::kXRows);
  static constexpr int kSlotBytes = static_cast<int>(RoundUp(kPanelBytes, 128));
  static constexpr bool kUsed = Products::kHasOutliers && !Products::kPanelsAfter;
  static constexpr int kSharedBytes = kUsed ? kSlots * kSlotBytes : 0;

  __device__ __forceinline__ PanelRing(const TileParameters& p, const TileRing<Products>& steps, uint8_t* shared,
                                       PanelBarriers& barriers)
      : p_(p), steps_(steps), shared_(shared), barriers_(barriers) {}

  // By one thread, before others do anything and before the barriers of the steps are made known.
  __device__ __forceinline__ void InitBarriers() {
    for (int i = 0; i < kSlots; ++i) {
      hopper::InitBarrier(&barriers_.full[i], 1);
      hopper::InitBarrier(&barriers_.empty[i], kTileConsumers * 4);
    }
  }

  // By all threads of a warp.
  __device__ __forceinline__ void Produce() {
    WaitForPrevious();
    TileSchedule schedule = steps_.schedule();
    TilePiece piece;
    PanelCounts counts(p_);
    RingPosition position;
    while (schedule.Next(piece)) {
      counts.Begin(piece.x_tile, piece.begin);
      for (int step = piece.begin; step < piece.end; ++step) {
        const int count = counts.Of(step);
        const uint8_t* const panels = PanelsOf<Products>(p_, piece.x_tile, step);
        for (int i = 0; i < count; ++i) {
          if (threadIdx.x % 32 == 0) Copy(panels + i * kPanelBytes, position);
          position.Advance(kSlots);
        }
      }
    }
  }

  __device__ __forceinline__ void WaitForPanel(const RingPosition& position) {
    hopper::Wait(&barriers_.full[position.stage], position.parity);
  }
  __device__ __forceinline__ void Release(const RingPosition& position) {
    if (threadIdx.x % 32 == 0) hopper::Arrive(&barriers_.empty[position.stage]);
  }
  __device__ __forceinline__ uint8_t* Panel(const RingPosition& position) const {
    return shared_ + position.stage * kSlotBytes;
  }

 private:
  __device__ __forceinline__ void Copy(const uint8_t* panel, const RingPosition& position) {
    hopper::Barrier* const full = &barriers_.full[position.stage];
    hopper::Wait(&barriers_.empty[position.stage], position.parity ^ 1);
    hopper::ArriveAndExpect(full, kPanelBytes);
    hopper::CopyBytes(Panel(position), panel, kPanelBytes, full);
  }

  const TileParameters& p_;
  const TileRing<Products>& steps_;
  uint8_t* const shared_;
  PanelBarriers& barriers_;
};

}  // namespace heddle::cuda
