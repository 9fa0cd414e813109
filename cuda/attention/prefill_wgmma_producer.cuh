// The producer warp of the Hopper prefill kernel.
#pragma once

#include "attention/prefill_wgmma_shared.cuh"

namespace heddle::cuda {

// Copies of 16-bit keys and values, a box a lane, straight to where consumers read them.
template <class Shape>
class WgmmaBoxCopies {
 public:
  // The row of the cache with which the lane's box of some block of keys begins.
  using Place = int;

  __device__ WgmmaBoxCopies(const WgmmaParameters& p, WgmmaShared<Shape>& shared)
      : p_(p),
        shared_(shared),
        lane_(threadIdx.x % 32),
        column_(lane_ % Shape::kChunks * 64),
        box_row_(lane_ / Shape::kChunks * p.box_rows),
        box_offset_(lane_ % Shape::kChunks * Shape::kKeyChunkBytes + box_row_ * 128) {}

  // One past the end, where everything is zero, when no row of the tile sees any of the box.
  __device__ Place PlaceOf(const PrefillTile& tile, int block) const {
    const AttentionParameters& a = p_.attention;
    const int key = block * Shape::kKeys + box_row_;
    if (!has_box() || key >= tile.key_end || key + p_.box_rows <= tile.key_begin) return p_.num_cache_rows;
    const int page = a.block_table[tile.seq * a.block_table_stride + (key >> a.block_shift)];
    return ((page * a.num_kv_heads + tile.kv_head) << a.block_shift) + (key & ((1 << a.block_shift) - 1));
  }

  __device__ void LoadKeys(Place row) { Load(p_.keys, shared_.keys, shared_.key_barriers, key_ring_, row); }
  __device__ void LoadValues(Place row) { Load(p_.values, shared_.values, shared_.value_barriers, value_ring_, row); }

 private:
  __device__ bool has_box() const { return box_row_ < Shape::kKeys; }

  template <class Barriers>
  __device__ __forceinline__ void Load(const CUtensorMap& map, uint8_t (&buffers)[Shape::kKeyStages][Shape::kKeyBytes],
                                       Barriers& barriers, StageRing<Shape::kKeyStages>& ring, int row) {
    hopper::Barrier* full = &barriers.full[ring.stage];
    hopper::Wait(&barriers.empty[ring.stage], ring.parity ^ 1);
    if (lane_ == 0) hopper::ArriveAndExpect(full, Shape::kKeyBytes);
    __syncwarp();
    if (has_box()) hopper::CopyBox(buffers[ring.stage] + box_offset_, map, full, column_, row);
    ring.Advance();
  }

  const WgmmaParameters& p_;
  WgmmaShared<Shape>& shared_;
  const int lane_;
  // The lane's box of a block of keys or values.
  const int column_;
  const int box_row_;
  const int box_offset_;
  StageRing<Shape::kKeyStages> key_ring_;
  StageRing<Shape::kKeyStages> value_ring_;
};

// Copies is WgmmaBoxCopies or WgmmaTileCopies.
template <class Shape, class Copies>
class WgmmaProducer {
 public:
  __device__ WgmmaProducer(const WgmmaParameters& p, WgmmaShared<Shape>& shared)
      : p_(p), shared_(shared), copies_(p, shared), lane_(threadIdx.x % 32) {}

  // By one warp.
  __device__ void Run() {
    PrefillTileFinder finder(p_.attention, p_.rows_per_tile);
    int index = blockIdx.x;
    while (true) {
      const PrefillTile tile = finder.Find(index);
      PassOn(tile);
      if (tile.is_empty()) break;
      // Asked for early: the answer takes long.
      const int taken = lane_ == 0 ? static_cast<int>(atomicAdd(&p_.counters[0], 1u)) : 0;
      LoadContext(tile);
      index = static_cast<int>(gridDim.x) + __shfl_sync(0xffffffffu, taken, 0);
    }
    // The last block leaves the counters as it found them.
    if (lane_ == 0 && atomicAdd(&p_.counters[1], 1u) == gridDim.x - 1) {
      p_.counters[0] = 0;
      p_.counters[1] = 0;
    }
  }

 private:
  // The tile and its queries.
  __device__ void PassOn(const PrefillTile& tile) {
    auto& barriers = shared_.q_barriers;
    hopper::Wait(&barriers.empty[q_ring_.stage], q_ring_.parity ^ 1);
    if (lane_ == 0) {
      hopper::Barrier* full = &barriers.full[q_ring_.stage];
      shared_.tiles[q_ring_.stage] = tile;
      if (tile.is_empty()) {
        hopper::Arrive(full);
      } else {
        hopper::ArriveAndExpect(full, Shape::kChunks * p_.rows_per_tile * 128);
        const AttentionParameters& a = p_.attention;
        for (int chunk = 0; chunk < Shape::kChunks; ++chunk) {
          hopper::CopyBox(shared_.q[q_ring_.stage] + chunk * Shape::kQueryChunkBytes, p_.q, full, chunk * 64,
                          tile.kv_head * a.group_size, tile.first_token + tile.first_row / a.group_size);
        }
      }
    }
    __syncwarp();
    q_ring_.Advance();
  }

  // Keys and values from the last to the first, in the order in which consumers want them.
  __device__ void LoadContext(const PrefillTile& tile) {
    const int first = tile.key_begin / Shape::kKeys;
    const int last = (tile.key_end - 1) / Shape::kKeys;
    auto place = copies_.PlaceOf(tile, last);
    copies_.LoadKeys(place);
    for (int block = last - 1; block >= first; --block) {
      const auto next = copies_.PlaceOf(tile, block);
      copies_.LoadKeys(next);
      copies_.LoadValues(place);
      place = next;
    }
    copies_.LoadValues(place);
  }

  const WgmmaParameters& p_;
  WgmmaShared<Shape>& shared_;
  Copies copies_;
  const int lane_;
  StageRing<Shape::kQueryStages> q_ring_;
};

}  // namespace heddle::cuda
