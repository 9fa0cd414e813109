// The kernel of products with quantised weights and 9 rows of x or more: y^T = weight x^T on Hopper's tensor cores, the
// weight as wgmma's 64 rows and x as its columns.
//
// Why that way round. What is read from device memory are the weights; a block has 128 rows of them and up to 256 rows
// of x, so that few rows of x waste neither products nor copies of what is not there. One warp copies, or two
// where panels of outliers come beside the steps, and two warpgroups multiply. The fewer tiles there are, the more it
// matters that all multiprocessors read: see tile_parameters.h.
#pragma once

#include "quant/panel_ring.cuh"
#include "quant/tile_consumer.cuh"

namespace heddle::cuda {

// Shared memory of a block: the ring of steps, what the consumers store from, the ring of panels, barriers.
template <class Products>
constexpr int TileSharedBytes(int num_stages) {
  constexpr int kAlignment = 1024;
  return kAlignment + num_stages * Products::kStageBytes + kTileConsumers * StoreBytes(Products::kXRows) +
         PanelRing<Products>::kSharedBytes + static_cast<int>(sizeof(TileBarriers) + sizeof(PanelBarriers)) +
         kTileConsumers * static_cast<int>(sizeof(uint32_t));
}

template <class Products>
__global__ void __launch_bounds__(kTileThreads, 1) TileKernel(const __grid_constant__ TileParameters p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int kProducerRegisters = 40;
  constexpr int kConsumerRegisters = 232;
  extern __shared__ uint8_t shared_bytes[];
  AllowNext();
  const uint32_t misalignment = SharedAddress(shared_bytes) % 1024;
  uint8_t* const shared = shared_bytes + (1024 - misalignment) % 1024;
  uint8_t* const buffers = shared + p.num_stages * Products::kStageBytes;
  constexpr int kBufferBytes = StoreBytes(Products::kXRows);  // of a consumer
  uint8_t* const panels = buffers + kTileConsumers * kBufferBytes;
  auto& barriers = *reinterpret_cast<TileBarriers*>(panels + PanelRing<Products>::kSharedBytes);
  auto& panel_barriers = *reinterpret_cast<PanelBarriers*>(&barriers + 1);
  auto* const flags = reinterpret_cast<uint32_t*>(&panel_barriers + 1);
  TileRing<Products> ring(p, shared, barriers);
  PanelRing<Products> panel_ring(p, ring, panels, panel_barriers);
  if (threadIdx.x == 0) {
    if constexpr (PanelRing<Products>::kUsed) panel_ring.InitBarriers();
    ring.InitBarriers();
  }
  __syncthreads();
  const int warpgroup = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128, 0);
  if (warpgroup == kTileConsumers) {
    hopper::GiveUpRegisters<kProducerRegisters>();
    if (threadIdx.x % 128 == 0) ring.Produce();
    if constexpr (PanelRing<Products>::kUsed) {
      if (threadIdx.x % 128 / 32 == 1) panel_ring.Produce();
    }
  } else {
    hopper::TakeRegisters<kConsumerRegisters>();
    WaitForPrevious();
    TileConsumer<Products>(p, ring, panel_ring, warpgroup, buffers + warpgroup * kBufferBytes, flags + warpgroup).Run();
  }
#elif defined(__CUDA_ARCH__)
  __trap();  // built for compute capability 9.0, but without the instructions that only 9.0a has
#endif
}

}  // namespace heddle::cuda
