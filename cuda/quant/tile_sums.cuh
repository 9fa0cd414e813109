// Sums of tiles that several blocks have pieces of: each leaves its own in global memory, and whoever comes last adds
// all of them in the order of k, so that the result does not depend on who that is.
#pragma once

#include <type_traits>

#include "common/hopper.cuh"
#include "quant/tile_schedule.cuh"

namespace heddle::cuda {

__device__ __forceinline__ uint32_t BitsOf(float sum) { return __float_as_uint(sum); }
__device__ __forceinline__ uint32_t BitsOf(int32_t sum) { return static_cast<uint32_t>(sum); }
template <typename Sum>
__device__ __forceinline__ Sum SumOf(uint32_t bits) {
  if constexpr (std::is_same_v<Sum, float>) {
    return __uint_as_float(bits);
  } else {
    return static_cast<Sum>(bits);
  }
}

// By all threads of a consumer, whose own barrier this is. `flag` is shared memory of the consumer.
class TileSums {
 public:
  __device__ __forceinline__ TileSums(const TileParameters& p, const TileSchedule& schedule, int consumer, int barrier,
                                      uint32_t* flag)
      : p_(p), schedule_(schedule), consumer_(consumer), barrier_(barrier), flag_(flag) {}

  // Leaves this block's sums of its piece of the tile.
  template <typename Sum, int kTiles>
  __device__ __forceinline__ void Leave(const Sum (&sums)[kTiles][4], int tile) const {
    Quad* const mine = PartialOf<kTiles>(static_cast<int>(blockIdx.x), tile);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      mine[j * 128] = {BitsOf(sums[j][0]), BitsOf(sums[j][1]), BitsOf(sums[j][2]), BitsOf(sums[j][3])};
    }
  }

  // After all was left that this block has to: whether all other blocks have done so.
  __device__ __forceinline__ bool IsLast(int tile) const {
    __threadfence();
    hopper::SyncNamed(barrier_, 128);
    if (threadIdx.x % 128 == 0) {
      uint32_t* const counter = p_.counters + tile * kTileConsumers + consumer_;
      const int others = schedule_.LastBlock(tile) - schedule_.FirstBlock(tile);
      const bool is_last = atomicAdd(counter, 1) == static_cast<uint32_t>(others);
      if (is_last) *counter = 0;
      *flag_ = is_last ? 1 : 0;
    }
    hopper::SyncNamed(barrier_, 128);
    if (*flag_ == 0) return false;
    __threadfence();
    return true;
  }

  // What all blocks have left of the tile, this one among them.
  template <typename Sum, int kTiles>
  __device__ __forceinline__ void AddAll(Sum (&sums)[kTiles][4], int tile) const {
    const int last = schedule_.LastBlock(tile);
    for (int block = schedule_.FirstBlock(tile); block <= last; ++block) Add(sums, block, tile);
  }

 private:
  using Quad = uint4;

  template <typename Sum, int kTiles>
  __device__ __forceinline__ void Add(Sum (&sums)[kTiles][4], int block, int tile) const {
    const Quad* const from = PartialOf<kTiles>(block, tile);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const Quad quad = __ldcg(from + j * 128);
      sums[j][0] += SumOf<Sum>(quad.x);
      sums[j][1] += SumOf<Sum>(quad.y);
      sums[j][2] += SumOf<Sum>(quad.z);
      sums[j][3] += SumOf<Sum>(quad.w);
    }
  }

  template <int kTiles>
  __device__ __forceinline__ Quad* PartialOf(int block, int tile) const {
    const int64_t index = int64_t{schedule_.PartialOf(block, tile)} * kTileConsumers + consumer_;
    return static_cast<Quad*>(p_.partial_sums) + index * (kTiles * 128) + threadIdx.x % 128;
  }

  const TileParameters& p_;
  const TileSchedule& schedule_;
  const int consumer_;
  const int barrier_;
  uint32_t* const flag_;
};

}  // namespace heddle::cuda
