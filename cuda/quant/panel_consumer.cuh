// What a consumer multiplies beside a step: the step's columns that have outliers, as T, by these. Its weights are
// there already, in the step's stage.
#pragma once

#include "quant/panel_ring.cuh"
#include "quant/tile_products.cuh"

namespace heddle::cuda {

template <class Products>
class PanelConsumer {
 public:
  static constexpr int kTiles = Products::kXRows / 8;

  __device__ __forceinline__ PanelConsumer(const TileParameters& p, PanelRing<Products>& ring, int consumer)
      : ring_(ring), counts_(p), consumer_(consumer) {}

  __device__ __forceinline__ void Begin(int x_tile, int step) { counts_.Begin(x_tile, step); }
  __device__ __forceinline__ int NumPanels(int step) { return counts_.Of(step); }

  // By the step's weights, in `stage`; then multiply_step(), which begins the step's own products and returns when none
  // before them is under way. So of dense weights these, or those of the step before, are under way at any time; 2:4
  // ones wait for each step's.
  //
  // No branch between a panel's product and the end of the wait for it: where the compiler does not see both, it takes
  // registers to be free that the product still reads.
  template <typename Body>
  __device__ __forceinline__ void Multiply(float (&sums)[kTiles][4], int step, const uint8_t* stage,
                                           const Body& multiply_step) {
    const int count = NumPanels(step);
    if (count == 0) return multiply_step();
    typename Products::Columns weights;
    uint32_t left[4];
    RingPosition next = position_;
    Load(weights, stage, Panel(next));
#pragma unroll 1
    for (int i = 1; i < count; ++i) {
      weights.template Convert<typename Products::Outlier>(left);
      next.Advance(kSlots);
      Load(weights, stage, Panel(next));
      Begin(sums, left, ring_.Panel(position_));
      hopper::WaitForProducts<0>();
      Release();
    }
    weights.template Convert<typename Products::Outlier>(left);
    Begin(sums, left, ring_.Panel(position_));
    multiply_step();
    Release();
  }

  // The same of panels that are in the stage, in the place of x. They have been multiplied when this returns.
  __device__ __forceinline__ void MultiplyInStage(float (&sums)[kTiles][4], int count, const uint8_t* stage) const {
    const uint8_t* const panels = stage + Products::kWeightBytes;
    typename Products::Columns weights;
    Load(weights, stage, panels);
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
      uint32_t left[4];
      weights.template Convert<typename Products::Outlier>(left);
      Load(weights, stage, panels + min(i + 1, count - 1) * kPanelBytes);
      Begin(sums, left, panels + i * kPanelBytes);
      hopper::WaitForProducts<0>();
    }
  }

 private:
  static constexpr int kSlots = PanelRing<Products>::kSlots;
  static constexpr int kPanelBytes = PanelBytes(Products::kXRows);
  static constexpr int kValueBytes = PanelValueBytes(Products::kXRows);

  __device__ __forceinline__ const uint8_t* Panel(const RingPosition& position) {
    ring_.WaitForPanel(position);
    return ring_.Panel(position);
  }

  template <class Columns>
  __device__ __forceinline__ void Load(Columns& weights, const uint8_t* stage, const uint8_t* panel) const {
    const uint8_t* const columns = panel + kValueBytes + threadIdx.x % 4 * 4;
    Products::Load(weights, stage, consumer_, *reinterpret_cast<const uint32_t*>(columns));
  }

  static __device__ __forceinline__ void Begin(float (&sums)[kTiles][4], const uint32_t (&left)[4],
                                               const uint8_t* panel) {
    const uint64_t right = hopper::DescribeHalves(SharedAddress(panel), kValueBytes / 2);
    hopper::BeginProducts();
    hopper::MultiplyAddTransposed<typename Products::Outlier>(sums, left, right);
    hopper::CommitProducts();
  }

  __device__ __forceinline__ void Release() {
    ring_.Release(position_);
    position_.Advance(kSlots);
  }

  PanelRing<Products>& ring_;
  PanelCounts counts_;
  const int consumer_;
  RingPosition position_;
};

}  // namespace heddle::cuda
