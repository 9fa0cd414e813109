// What the two roles in a block of the Hopper prefill kernel share. A producer warp takes tile after tile and copies
// its queries, keys and values into shared memory; consumer warpgroups compute 64 rows of the tile each. Barriers in
// shared memory say when a buffer is full and when it is empty again; the producer runs ahead by as many buffers as
// there are.
#pragma once

#include "attention/prefill_tiles.cuh"
#include "common/hopper.cuh"

namespace heddle::cuda {

template <int kDim>
struct WgmmaShape {
  static constexpr int kHeadDim = kDim;
  static constexpr int kConsumers = kHeadDim == 64 ? 3 : 2;
  static constexpr int kThreads = 128 * (1 + kConsumers);
  static constexpr int kRows = 64 * kConsumers;
  static constexpr int kKeys = kHeadDim == 256 ? 80 : 128;
  static constexpr int kMaxBoxRows = kHeadDim == 256 ? 16 : 128;  // divides kKeys
  // Shared memory holds 64 elements of all rows, then the next 64; what a head lacks is zero.
  static constexpr int kChunks = (kHeadDim + 63) / 64;
  static constexpr int kQueryChunkBytes = kRows * 128;
  static constexpr int kKeyChunkBytes = kKeys * 128;
  static constexpr int kQueryBytes = kChunks * kQueryChunkBytes;
  static constexpr int kKeyBytes = kChunks * kKeyChunkBytes;
  static constexpr int kQueryStages = kHeadDim == 256 ? 1 : 2;
  static constexpr int kKeyStages = 2;
  // Of the 65536 that all threads together have.
  static constexpr int kProducerRegisters = kConsumers == 3 ? 32 : 40;
  static constexpr int kConsumerRegisters = kConsumers == 3 ? 160 : 232;
};

struct WgmmaParameters {
  AttentionParameters attention;
  int32_t rows_per_tile;  // whole tokens
  int32_t box_rows;       // of the cache, copied at once
  int32_t num_cache_rows;
  uint32_t* counters;  // two, zero: tiles taken beyond every block's first; blocks that have found no more
  CUtensorMap q;       // [tokens, heads, elements]
  CUtensorMap keys;    // [rows, elements]
  CUtensorMap values;
};

template <class Shape>
struct WgmmaShared {
  template <int kStages>
  struct Barriers {
    hopper::Barrier full[kStages];
    hopper::Barrier empty[kStages];
  };

  alignas(1024) uint8_t q[Shape::kQueryStages][Shape::kQueryBytes];
  alignas(1024) uint8_t keys[Shape::kKeyStages][Shape::kKeyBytes];
  alignas(1024) uint8_t values[Shape::kKeyStages][Shape::kKeyBytes];
  float computed_before_wait[Shape::kThreads];  // never read
  PrefillTile tiles[Shape::kQueryStages];       // the queries' tile; an empty one is the end
  Barriers<Shape::kQueryStages> q_barriers;
  Barriers<Shape::kKeyStages> key_barriers;
  Barriers<Shape::kKeyStages> value_barriers;

  __device__ void Init() {
    InitOne(q_barriers);
    InitOne(key_barriers);
    InitOne(value_barriers);
    hopper::FenceBarrierInit();
  }

 private:
  template <int kStages>
  __device__ static void InitOne(Barriers<kStages>& barriers) {
    for (int stage = 0; stage < kStages; ++stage) {
      hopper::InitBarrier(&barriers.full[stage], 1);
      hopper::InitBarrier(&barriers.empty[stage], 4 * Shape::kConsumers);  // one of every warp
    }
  }
};

// Which buffer comes next, and the parity of the phase that its barriers are in.
template <int kStages>
struct StageRing {
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void Advance() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

}  // namespace heddle::cuda
