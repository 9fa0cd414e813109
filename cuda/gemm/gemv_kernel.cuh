// The kernel of Gemv and GatedGemv: y = x weight^T, one pass over the weights at the speed of device memory.
//
// A persistent block takes every gridDim.x-th tile. Its warps share the tile's k, chunk by chunk, and add their sums in
// shared memory at the tile's end. Some blocks have a tile less than others, and multiprocessors read at different
// speeds; where one is done, the next product's block takes its place and keeps memory busy.
#pragma once

#include "common/launch.h"
#include "gemm/activation.cuh"
#include "gemm/gemv_ring.cuh"
#include "gemm/gemv_sums.cuh"
#include "gemm/gemv_x.cuh"

namespace heddle::cuda {

template <typename T>
__device__ __forceinline__ void Store(const GemvArguments& arguments, int row, int output, float value) {
  const int64_t index = row * arguments.y_stride + output;
  if (arguments.float32_output) {
    static_cast<float*>(arguments.y)[index] = value;
  } else {
    static_cast<T*>(arguments.y)[index] = FromFloat<T>(value);
  }
}

// Adds the sums of all warps and writes the tile's outputs. `partial` holds, for each warp, [num_rows, kGroups * 16].
template <typename T, int kGroups, bool kGated>
__device__ __forceinline__ void FinishTile(const GemvArguments& arguments, int tile,
                                           const GroupSums<T> (&sums)[kGroups], float* partial) {
  constexpr int kTileRows = kGroups * kGroupRows;
  constexpr int kOutputs = kGated ? kGroupRows : kTileRows;
  const int lane = threadIdx.x % 32;
  const int sums_per_warp = arguments.num_rows * kTileRows;

  __syncthreads();  // those of the tile before have been read
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    const float4 mine = sums[group].Get();
    const int row = lane % 4 * 2;
    float* const to = partial + threadIdx.x / 32 * sums_per_warp + row * kTileRows + group * kGroupRows + lane / 4;
    if (row < arguments.num_rows) {
      to[0] = mine.x;
      to[8] = mine.z;
    }
    if (row + 1 < arguments.num_rows) {
      to[kTileRows] = mine.y;
      to[kTileRows + 8] = mine.w;
    }
  }
  __syncthreads();

  const auto sum = [&](int index, int bias_index) {
    float total = 0;
#pragma unroll
    for (int warp = 0; warp < kGemvWarps; ++warp) total += partial[warp * sums_per_warp + index];
    return arguments.bias == nullptr ? total : total + arguments.bias[bias_index];
  };
  for (int i = threadIdx.x; i < arguments.num_rows * kOutputs; i += kGemvThreads) {
    const int row = i / kOutputs;
    const int output = tile * kOutputs + i % kOutputs;
    if (output >= arguments.num_outputs) continue;
    const int index = row * kTileRows + i % kOutputs;
    float value = sum(index, output);
    if constexpr (kGated) {
      value = Activate(arguments.activation, value) * sum(index + kGroupRows, arguments.num_outputs + output);
    }
    Store<T>(arguments, row, output, value);
  }
}

template <typename T, int kGroups, int kStages, bool kGated>
__global__ void __launch_bounds__(kGemvThreads, 2) GemvKernel(const __grid_constant__ GemvArguments arguments) {
  static_assert(!kGated || kGroups == 2);
  extern __shared__ __align__(128) unsigned char shared[];
  const uint32_t ring_memory = SharedAddress(shared);
  const uint32_t x_memory = ring_memory + RingBytes(kStages);
  auto* const partial = reinterpret_cast<float*>(shared + RingBytes(kStages) + XSharedBytes(arguments));
  const int warp = threadIdx.x / 32;

  AllowNext();
  WeightRing<kGroups, kStages, kGated> ring(arguments, ring_memory + warp * kStages * kStageBytes);
  WaitForPrevious();
  XSlabs slabs(arguments, x_memory);
  slabs.LoadFirst();

  int stages_of_slab = 0;
  for (int tile = blockIdx.x; tile < arguments.num_tiles; tile += gridDim.x) {
    GroupSums<T> sums[kGroups];
    for (int slab = 0; slab < arguments.num_slabs; ++slab) {
      const int begin = slabs.Begin(slab);
      const int end = slabs.Begin(slab + 1);
      if (arguments.num_slabs > 1) {
        if (stages_of_slab > 0) slabs.Turn<kStages>(stages_of_slab);
        const bool last_of_tile = slab + 1 == arguments.num_slabs;
        const bool last_tile = static_cast<int>(tile + gridDim.x) >= arguments.num_tiles;
        if (!last_of_tile || !last_tile) slabs.Start(last_of_tile ? 0 : slab + 1);
        stages_of_slab = (end - begin) * kGroups;
      }
      SharedX x{slabs.Address() + warp * kChunkBytes, arguments.x_shared_pitch, arguments.num_rows};
      for (int round = begin; round < end; ++round) {
#pragma unroll
        for (int group = 0; group < kGroups; ++group) {
          sums[group].Add(ring.Front(), x);
          ring.Pop();
        }
        x.address += kRoundBytes;
      }
    }
    FinishTile<T, kGroups, kGated>(arguments, tile, sums, partial);
  }
}

}  // namespace heddle::cuda
