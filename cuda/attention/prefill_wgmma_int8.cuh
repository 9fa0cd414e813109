// Int8 caches in the Hopper prefill kernel: the producer copies tiles of the cache, as they lie there, into buffers of
// their own, and other warps make of them the keys and values that consumers expect.
//
// So every key and value is converted once for all rows of a tile, and its scale costs the consumers nothing, whose
// softmax is what the products wait for. To convert the context ahead of the kernel instead would write and read again
// what a sequence that only decodes beside a prompt reads once.
#pragma once

#include "attention/prefill_wgmma_shared.cuh"
#include "attention/scaled_floats.cuh"

namespace heddle::cuda {

// The producer's copies: one of each 16 tokens, a lane for each, of those that some row of the tile sees.
template <class Shape>
class WgmmaTileCopies {
 public:
  // The tile of the cache that is the lane's of some block of keys; negative: it has none.
  using Place = int64_t;

  __device__ WgmmaTileCopies(const WgmmaParameters& p, WgmmaShared<Shape>& shared)
      : p_(p.attention), shared_(shared), lane_(threadIdx.x % 32) {}

  __device__ Place PlaceOf(const PrefillTile& tile, int block) const {
    const int key = block * Shape::kKeys + lane_ * kCacheTileTokens;
    const bool is_seen = lane_ < Shape::kStagedTiles && key < tile.key_end && key + kCacheTileTokens > tile.key_begin;
    if (!is_seen) return -1;
    const int page = p_.block_table[tile.seq * p_.block_table_stride + (key >> p_.block_shift)];
    return CacheRow(p_, page, tile.kv_head, key & ((1 << p_.block_shift) - 1)) / kCacheTileTokens;
  }

  __device__ void LoadKeys(Place place) { Load(p_.keys, place); }
  __device__ void LoadValues(Place place) { Load(p_.values, place); }

 private:
  __device__ void Load(const void* cached, Place place) {
    constexpr int kBytes = CacheTileBytes(Shape::kHeadDim);
    auto& barriers = shared_.staged_barriers;
    hopper::Barrier* full = &barriers.full[ring_.stage];
    hopper::Wait(&barriers.empty[ring_.stage], ring_.parity ^ 1);
    const int num_copies = __popc(__ballot_sync(0xffffffffu, place >= 0));
    if (lane_ == 0) hopper::ArriveAndExpect(full, num_copies * kBytes);
    __syncwarp();
    if (place >= 0) {
      hopper::CopyBytes(shared_.staged[ring_.stage] + lane_ * kBytes, static_cast<const char*>(cached) + place * kBytes,
                        kBytes, full);
    }
    ring_.Advance();
  }

  const AttentionParameters& p_;
  WgmmaShared<Shape>& shared_;
  const int lane_;
  StageRing<Shape::kStagedStages> ring_;
};

template <typename T, class Shape>
class WgmmaConverter {
 public:
  // `warp` is that among the converters.
  __device__ WgmmaConverter(WgmmaShared<Shape>& shared, int warp)
      : shared_(shared), lane_(threadIdx.x % 32), turn_(warp) {}

  // By one warp.
  __device__ void Run() {
    while (true) {
      hopper::Wait(&shared_.q_barriers.full[q_ring_.stage], q_ring_.parity);
      const PrefillTile tile = shared_.tiles[q_ring_.stage];
      Release(shared_.q_barriers, q_ring_);
      if (tile.is_empty()) return;
      const int first = tile.key_begin / Shape::kKeys;
      const int last = (tile.key_end - 1) / Shape::kKeys;
      ConvertKeys(tile, last);
      for (int block = last - 1; block >= first; --block) {
        ConvertKeys(tile, block);
        ConvertValues(tile, block + 1);
      }
      ConvertValues(tile, first);
    }
  }

 private:
  static constexpr int kPiecesPerRow = Shape::kHeadDim / 8;  // of 8 elements
  static constexpr int kPiecesPerLane = kCacheTileTokens * kPiecesPerRow / 32;
  static constexpr int kBatch = kPiecesPerLane % 4 == 0 ? 4 : 2;  // loads on their way together
  static_assert(kCacheTileTokens * kPiecesPerRow % 32 == 0 && kPiecesPerLane % kBatch == 0);

  __device__ void ConvertKeys(const PrefillTile& tile, int block) {
    Convert(tile, block, shared_.keys[key_ring_.stage], shared_.key_barriers, key_ring_);
  }
  __device__ void ConvertValues(const PrefillTile& tile, int block) {
    Convert(tile, block, shared_.values[value_ring_.stage], shared_.value_barriers, value_ring_);
  }

  template <class Barriers>
  __device__ __forceinline__ void Convert(const PrefillTile& tile, int block, uint8_t* to, Barriers& barriers,
                                          StageRing<Shape::kKeyStages>& ring) {
    hopper::Wait(&shared_.staged_barriers.full[staged_ring_.stage], staged_ring_.parity);
    hopper::Wait(&barriers.empty[ring.stage], ring.parity ^ 1);
    // Tiles go around, so that each warp has as many.
    int index = turn_;
    for (; index < Shape::kStagedTiles; index += Shape::kConverters) {
      const int key = block * Shape::kKeys + index * kCacheTileTokens;
      if (key >= tile.key_end || key + kCacheTileTokens <= tile.key_begin) continue;
      ConvertTile(shared_.staged[staged_ring_.stage] + index * CacheTileBytes(Shape::kHeadDim),
                  to + index * kCacheTileTokens * 128);
    }
    turn_ = index - Shape::kStagedTiles;
    hopper::FenceAsyncProxy();
    __syncwarp();
    if (lane_ == 0) hopper::Arrive(&barriers.full[ring.stage]);
    ring.Advance();
    Release(shared_.staged_barriers, staged_ring_);
  }

  // 16 tokens, swizzled as consumers read them.
  __device__ __forceinline__ void ConvertTile(const uint8_t* staged, uint8_t* to) const {
    const uint8_t* const scales = staged + kCacheTileTokens * Shape::kHeadDim;
#pragma unroll
    for (int begin = 0; begin < kPiecesPerLane; begin += kBatch) {
      uint2 values[kBatch];
      float scale[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int piece = (begin + i) * 32 + lane_;
        values[i] = *reinterpret_cast<const uint2*>(staged + piece * 8);
        scale[i] = reinterpret_cast<const float*>(scales)[piece / kPiecesPerRow];
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int piece = (begin + i) * 32 + lane_;
        const int row = piece / kPiecesPerRow;
        const int column = piece % kPiecesPerRow;
        const int offset = column / 8 * Shape::kKeyChunkBytes + row * 128 + (column % 8 ^ row % 8) * 16;
        *reinterpret_cast<uint4*>(to + offset) = ScaledFloats<T>(values[i], scale[i]);
      }
    }
  }

  // By every warp once it is done with the buffer.
  template <class Barriers, int kStages>
  __device__ __forceinline__ void Release(Barriers& barriers, StageRing<kStages>& ring) {
    __syncwarp();
    if (lane_ == 0) hopper::Arrive(&barriers.empty[ring.stage]);
    ring.Advance();
  }

  WgmmaShared<Shape>& shared_;
  const int lane_;
  int turn_;  // the first tile that is the warp's of the next block
  StageRing<Shape::kQueryStages> q_ring_;
  StageRing<Shape::kStagedStages> staged_ring_;
  StageRing<Shape::kKeyStages> key_ring_;
  StageRing<Shape::kKeyStages> value_ring_;
};

}  // namespace heddle::cuda
