// Where an int8 cache has what of a token: see HeddleCudaKVCache.
#pragma once

#include <cstdint>

namespace heddle::cuda {

inline constexpr int kCacheTileTokens = 16;

// Of keys, or values, and their scales.
__host__ __device__ constexpr int CacheTileBytes(int head_dim) {
  return kCacheTileTokens * (head_dim + static_cast<int>(sizeof(float)));
}

// Bytes from the beginning of keys, or values, to those of one head of a token, whose row is
// (block * num_kv_heads + kv_head) * block_size + the token's place in the block.
struct Int8CacheRow {
  __device__ __forceinline__ Int8CacheRow(int64_t row, int head_dim) {
    const int64_t tile = row / kCacheTileTokens * CacheTileBytes(head_dim);
    const auto token = static_cast<int>(row % kCacheTileTokens);
    elements = tile + token * head_dim;
    scale = tile + kCacheTileTokens * head_dim + token * static_cast<int>(sizeof(float));
  }

  int64_t elements;
  int64_t scale;
};

}  // namespace heddle::cuda
