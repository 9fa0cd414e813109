// What the two roles in a block of the Hopper prefill kernel share. A producer warp takes tile after tile and copies
// its queries, keys and values into shared memory; consumer warpgroups compute 64 rows of the tile each. Barriers in
// shared memory say when a buffer is full and when it is empty again; the producer runs ahead by as many buffers as
// there are. Int8 keys and values pass through buffers of their own: see prefill_wgmma_int8.cuh.
#pragma once

#include "attention/prefill_tiles.cuh"
#include "common/hopper.cuh"

namespace heddle::cuda {

template <int kDim, bool kIsInt8>
struct WgmmaShape {
  static constexpr int kHeadDim = kDim;
  static constexpr bool kInt8 = kIsInt8;
  static constexpr int kConsumers = kHeadDim == 64 ? 3 : 2;
  // Warps that convert int8: all of the producer's warpgroup but itself, and another one where registers allow.
  static constexpr int kConverters = !kInt8 ? 0 : kConsumers == 3 ? 3 : 7;
  static constexpr int kFirstConsumer = kConverters == 7 ? 2 : 1;  // of the warpgroups
  static constexpr int kThreads = 128 * (kFirstConsumer + kConsumers);
  static constexpr int kRows = 64 * kConsumers;
  static constexpr int kKeys = kHeadDim == 256 ? (kInt8 ? 64 : 80) : 128;
  static constexpr int kMaxBoxRows = kHeadDim == 256 ? 16 : 128;  // divides kKeys
  // Shared memory holds 64 elements of all rows, then the next 64; what a head lacks is zero.
  static constexpr int kChunks = (kHeadDim + 63) / 64;
  static constexpr int kQueryChunkBytes = kRows * 128;
  static constexpr int kKeyChunkBytes = kKeys * 128;
  static constexpr int kQueryBytes = kChunks * kQueryChunkBytes;
  static constexpr int kKeyBytes = kChunks * kKeyChunkBytes;
  static constexpr int kQueryStages = kHeadDim == 256 || (kInt8 && kHeadDim > 64) ? 1 : 2;
  static constexpr int kKeyStages = 2;
  // What converters are given.
  static constexpr int kStagedTiles = kKeys / kCacheTileTokens;
  static constexpr int kStagedBytes = kInt8 ? kStagedTiles * CacheTileBytes(kHeadDim) : 16;
  static constexpr int kStagedStages = kHeadDim == 256 ? 2 : 3;
  // Of those that all threads together are launched with.
  static constexpr int kProducerRegisters = kConsumers == 3 ? 32 : 40;
  static constexpr int kConsumerRegisters = kConsumers == 3 ? 160 : kFirstConsumer == 2 ? 216 : 232;
};

struct WgmmaParameters {
  AttentionParameters attention;
  int32_t rows_per_tile;  // whole tokens
  int32_t box_rows;       // of the cache, copied at once
  int32_t num_cache_rows;
  uint32_t* counters;  // two, zero: tiles taken beyond every block's first; blocks that have found no more
  CUtensorMap q;       // [tokens, heads, elements]
  CUtensorMap keys;    // [rows, elements]; not of int8
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
  alignas(128) uint8_t staged[Shape::kInt8 ? Shape::kStagedStages : 1][Shape::kStagedBytes];
  float computed_before_wait[128 * Shape::kConsumers];  // never read
  PrefillTile tiles[Shape::kQueryStages];               // the queries' tile; an empty one is the end
  Barriers<Shape::kQueryStages> q_barriers;
  Barriers<Shape::kKeyStages> key_barriers;
  Barriers<Shape::kKeyStages> value_barriers;
  Barriers<Shape::kStagedStages> staged_barriers;

  __device__ void Init() {
    // A barrier has an arrival of every warp that fills, or empties, the buffer; one alone has bytes announced.
    constexpr int kConsumerWarps = 4 * Shape::kConsumers;
    constexpr int kFillers = Shape::kInt8 ? Shape::kConverters : 1;
    InitOne(q_barriers, 1, kConsumerWarps + Shape::kConverters);
    InitOne(key_barriers, kFillers, kConsumerWarps);
    InitOne(value_barriers, kFillers, kConsumerWarps);
    if constexpr (Shape::kInt8) InitOne(staged_barriers, 1, Shape::kConverters);
    hopper::FenceBarrierInit();
  }

 private:
  template <int kStages>
  __device__ static void InitOne(Barriers<kStages>& barriers, int num_fillers, int num_emptiers) {
    for (int stage = 0; stage < kStages; ++stage) {
      hopper::InitBarrier(&barriers.full[stage], num_fillers);
      hopper::InitBarrier(&barriers.empty[stage], num_emptiers);
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
