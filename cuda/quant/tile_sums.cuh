// Sums of tiles that several blocks have pieces of. Each block leaves its own in global memory and announces them.
// After all of its pieces and whole tiles it comes back to those tiles, waits until all pieces were announced, and adds
// what was left of some of the rows of x: in the order of k, so that the result does not depend on who came when.
//
// Nearly always all blocks of a grid run at the same time, but not where ranks share a device and another's kernel,
// which may wait for this very rank, has some of the multiprocessors. So a block waits for some time and then leaves
// the tile to the others, of whom the last to announce never waits.
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

// Of a consumer, by all of its threads, whose own barrier this is. `flag` is shared memory of the consumer.
class TileSums {
 public:
  __device__ __forceinline__ TileSums(const TileParameters& p, int consumer, int barrier, uint32_t* flag)
      : p_(p), consumer_(consumer), barrier_(barrier), flag_(flag) {}

  // Leaves this block's sums of a piece.
  template <typename Sum, int kTiles>
  __device__ __forceinline__ void Leave(const Sum (&sums)[kTiles][4], const TilePiece& piece) {
    Quad* const mine = Partial<kTiles>(static_cast<int>(blockIdx.x), piece.begin == 0);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      mine[j * 128] = {BitsOf(sums[j][0]), BitsOf(sums[j][1]), BitsOf(sums[j][2]), BitsOf(sums[j][3])};
    }
    left_ = piece.tile;
  }

  // Announces what was left since the last time. It waits until that is written, which is soon when there were other
  // things to do meanwhile.
  __device__ __forceinline__ void Announce() {
    if (left_ < 0) return;
    hopper::SyncNamed(barrier_, 128);
    if (threadIdx.x % 128 == 0) {
      __threadfence();
      atomicAdd(Counter(left_), 1);
    }
    left_ = -1;
  }

  // body(part) for this block's share of a tile's parts, when all of blocks [first_block, last_block] have announced
  // their sums of it. Parts go round among them. Where one has given up waiting, whoever has not takes all parts: some
  // several times, with the same result. Once for each block, after it has announced its own.
  template <typename Body>
  __device__ __forceinline__ void ForShare(int tile, int first_block, int last_block, int num_parts,
                                           const Body& body) const {
    const int num_pieces = last_block - first_block + 1;
    hopper::SyncNamed(barrier_, 128);
    if (threadIdx.x % 128 == 0) *flag_ = Await(Counter(tile), num_pieces);
    hopper::SyncNamed(barrier_, 128);
    const uint32_t count = *flag_;
    if (Announced(count) < num_pieces) return;
    const int num_given_up = static_cast<int>(count / kGivenUp);
    // Zero again when the last has come here.
    if (threadIdx.x % 128 == 0) {
      atomicInc(Counter(tile), num_given_up * kGivenUp + static_cast<uint32_t>(2 * num_pieces - num_given_up - 1));
    }
    const int stride = num_given_up > 0 ? 1 : num_pieces;
    for (int part = num_given_up > 0 ? 0 : static_cast<int>(blockIdx.x) - first_block; part < num_parts;
         part += stride) {
      body(part);
    }
  }

  // Adds what blocks [first_block, last_block] have left of a tile that they have together: of its rows from `row` on,
  // so many, of all kXRows.
  template <int kXRows, typename Sum, int kSize>
  __device__ __forceinline__ void Add(Sum (&sums)[kSize][4], int first_block, int last_block, int row) const {
    constexpr int kBatch = 8;  // pieces whose sums are on their way together
    for (int first = first_block; first <= last_block; first += kBatch) {
      Quad quads[kBatch][kSize];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int block = first + i;
        const Quad* const from = Partial<kXRows / 8>(block, block == first_block) + row / 8 * 128;
#pragma unroll
        for (int j = 0; j < kSize; ++j) quads[i][j] = block <= last_block ? __ldcg(from + j * 128) : Quad{};
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
#pragma unroll
        for (int j = 0; j < kSize; ++j) {
          sums[j][0] += SumOf<Sum>(quads[i][j].x);
          sums[j][1] += SumOf<Sum>(quads[i][j].y);
          sums[j][2] += SumOf<Sum>(quads[i][j].z);
          sums[j][3] += SumOf<Sum>(quads[i][j].w);
        }
      }
    }
  }

 private:
  using Quad = uint4;

  // A block has at most two pieces of tiles that others have pieces of: the first of such a tile, and another.
  template <int kTiles>
  __device__ __forceinline__ Quad* Partial(int block, bool is_first) const {
    const int64_t index = int64_t{2 * block + (is_first ? 1 : 0)} * kTileConsumers + consumer_;
    return static_cast<Quad*>(p_.partial_sums) + index * (kTiles * 128) + threadIdx.x % 128;
  }

  __device__ __forceinline__ uint32_t* Counter(int tile) const {
    return p_.counters + tile * kTileConsumers + consumer_;
  }

  // A counter counts pieces that were announced, then also blocks that have seen that all were. Once for each block
  // that has given up before, kGivenUp.
  static constexpr uint32_t kGivenUp = 1 << 16;
  static __device__ __forceinline__ int Announced(uint32_t count) { return static_cast<int>(count % kGivenUp); }

  // What it counts when all pieces were announced, or when this thread has given up.
  static __device__ __forceinline__ uint32_t Await(uint32_t* counter, int num_pieces) {
    constexpr int kMostPolls = 100;  // each takes most of a microsecond
    uint32_t count = LoadAcquire(counter);
    for (int i = 0; Announced(count) < num_pieces && i < kMostPolls; ++i) {
      __nanosleep(20);
      count = LoadAcquire(counter);
    }
    while (Announced(count) < num_pieces) {
      if (atomicCAS(counter, count, count + kGivenUp) == count) break;
      count = LoadAcquire(counter);
    }
    return count;
  }

  static __device__ __forceinline__ uint32_t LoadAcquire(const uint32_t* from) {
    uint32_t value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
    return value;
  }

  const TileParameters& p_;
  const int consumer_;
  const int barrier_;
  uint32_t* const flag_;
  int left_ = -1;  // the tile of the sums that were left and not announced
};

}  // namespace heddle::cuda
