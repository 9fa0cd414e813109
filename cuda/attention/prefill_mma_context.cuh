// Keys and values in shared memory, as the mma prefill kernel multiplies them: blocks of kKeys tokens of a tile's
// context, zeros where no row of the tile sees them.
#pragma once

#include "attention/prefill_tiles.cuh"
#include "attention/scaled_floats.cuh"
#include "common/launch.h"

namespace heddle::cuda {

template <int kHeadDim, bool kInt8>
struct MmaShape {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  // 16-row fragments of a warp: with two, what is read of keys and values serves twice, as far as registers go.
  static constexpr int kFragments = kHeadDim <= 128 ? 2 : 1;
  static constexpr int kRows = 16 * kFragments * kWarps;
  static constexpr int kKeys = kHeadDim <= 128 ? 64 : 32;
  static constexpr int kChunks = kHeadDim / 8;  // of 16 bytes, in a row
  static constexpr int kRowBytes = 16 * kChunks;
  static constexpr int kTiles = kKeys / kCacheTileTokens;  // of an int8 cache
  static constexpr int kStagedBytes = kInt8 ? kTiles * CacheTileBytes(kHeadDim) : 0;
  static constexpr int kSharedBytes = (kRows + 2 * kKeys) * kRowBytes + 2 * kStagedBytes;
};

// Where chunk `chunk` of row `row` lies in shared memory, such that any 8 rows' chunks of one number lie in different
// banks.
template <int kChunks>
__device__ __forceinline__ uint32_t SwizzledOffset(int row, int chunk) {
  static_assert(kChunks % 4 == 0);
  const int swizzled = kChunks % 8 == 0 ? chunk ^ (row % 8) : chunk ^ (row / 2 % 4);
  return 16u * (row * kChunks + swizzled);
}

// From the place of chunk 0 or 1 of a row to that of the chunk 2 * pairs further.
template <int kChunks>
__device__ __forceinline__ uint32_t SkipChunkPairs(uint32_t address, int pairs) {
  constexpr int kSwizzledPairs = kChunks % 8 == 0 ? 4 : 2;
  return (address ^ (pairs % kSwizzledPairs * 32)) + pairs / kSwizzledPairs * (kSwizzledPairs * 32);
}

// By all threads of the block.
template <typename T, int kHeadDim, bool kInt8>
class MmaContext {
  using Shape = MmaShape<kHeadDim, kInt8>;

 public:
  __device__ MmaContext(const AttentionParameters& p, const PrefillTile& tile, uint32_t k, uint32_t v,
                        const uint8_t* staged)
      : p_(p), tile_(tile), k_(k), v_(v), staged_(staged) {}

  // Start the copies.
  __device__ void LoadKeys(int block) const {
    if constexpr (kInt8) return LoadTiles(staged_, p_.keys, block);
    LoadRows(k_, static_cast<const T*>(p_.keys), block);
  }
  __device__ void LoadValues(int block) const {
    if constexpr (kInt8) return LoadTiles(staged_ + Shape::kStagedBytes, p_.values, block);
    LoadRows(v_, static_cast<const T*>(p_.values), block);
  }

  // Of an int8 cache, once the copies have come and nobody reads the keys, or values, before: makes floats of them. End
  // with a barrier.
  __device__ void ConvertKeys(int block) const {
    if constexpr (kInt8) Convert(staged_, k_, block);
  }
  __device__ void ConvertValues(int block) const {
    if constexpr (kInt8) Convert(staged_ + Shape::kStagedBytes, v_, block);
  }

 private:
  __device__ bool IsSeen(int key) const { return key >= tile_.key_begin && key < tile_.key_end; }

  __device__ int64_t RowOfKey(int key) const {
    const int page = p_.block_table[tile_.seq * p_.block_table_stride + (key >> p_.block_shift)];
    return CacheRow(p_, page, tile_.kv_head, key & ((1 << p_.block_shift) - 1));
  }

  // Rows of block `block`; zeros where no row of the tile sees them.
  __device__ void LoadRows(uint32_t to, const T* cached, int block) const {
#pragma unroll 2
    for (int i = threadIdx.x; i < Shape::kKeys * Shape::kChunks; i += Shape::kThreads) {
      const int row = i / Shape::kChunks;
      const int chunk = i % Shape::kChunks;
      const int key = block * Shape::kKeys + row;
      const bool valid = IsSeen(key);
      const T* const from = valid ? cached + RowOfKey(key) * kHeadDim + 8 * chunk : cached;
      CopyAsyncInOrder(to + SwizzledOffset<Shape::kChunks>(row, chunk), from, valid);
    }
  }

  // The same of an int8 cache, as it lies there, but for tiles of which no row sees any.
  __device__ void LoadTiles(const uint8_t* to, const void* cached, int block) const {
    constexpr int kBytes = CacheTileBytes(kHeadDim);
#pragma unroll 2
    for (int i = threadIdx.x; i < Shape::kStagedBytes / 16; i += Shape::kThreads) {
      const int index = i / (kBytes / 16);
      const int key = block * Shape::kKeys + index * kCacheTileTokens;
      if (key >= tile_.key_end || key + kCacheTileTokens <= tile_.key_begin) continue;
      const int64_t from = RowOfKey(key) / kCacheTileTokens * kBytes + (i - index * (kBytes / 16)) * 16;
      CopyAsyncInOrder(SharedAddress(to) + 16 * i, static_cast<const char*>(cached) + from);
    }
  }

  __device__ void Convert(const uint8_t* staged, uint32_t to, int block) const {
#pragma unroll 4
    for (int i = threadIdx.x; i < Shape::kKeys * Shape::kChunks; i += Shape::kThreads) {
      const int row = i / Shape::kChunks;
      const int chunk = i % Shape::kChunks;
      const Int8CacheRow place(row, kHeadDim);
      const uint2 values = *reinterpret_cast<const uint2*>(staged + place.elements + 8 * chunk);
      const float scale = *reinterpret_cast<const float*>(staged + place.scale);
      StoreShared(to + SwizzledOffset<Shape::kChunks>(row, chunk),
                  ScaledFloats<T>(values, IsSeen(block * Shape::kKeys + row) ? scale : 0.0f));
    }
    __syncthreads();
  }

  const AttentionParameters& p_;
  const PrefillTile& tile_;
  const uint32_t k_;
  const uint32_t v_;
  const uint8_t* const staged_;  // int8 keys, then values
};

}  // namespace heddle::cuda
