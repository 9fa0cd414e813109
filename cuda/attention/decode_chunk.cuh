// A chunk as a stage of the pipeline holds it, rows of one token each, keys and then values; and what it is multiplied
// by and how. A row is longer than its elements by 16 bytes, so that the same 16 bytes of eight neighbouring rows lie
// in different banks.
#pragma once

#include "attention/decode_split.cuh"

namespace heddle::cuda {

// T is the type of queries, C that of the cache. The order in which a product adds up elements of a head, and in which
// it has them for rows, is the stage's own: see QueryElement and OutElement.
template <typename T, typename C, int kHeadDim>
struct ChunkStage;

// Queries as the second operand of products: pairs of elements of the head lane / 4 of each eight.
template <int kHeadDim, int kHeads>
struct QueryFragments {
  template <typename T, class Stage>
  __device__ void Load(const DecodeParameters& p, const Piece& piece) {
    const HeadTile heads(p, piece.tile);
    const int lane = threadIdx.x % 32;
    const T* q = static_cast<const T*>(p.attention.q) + piece.seq * p.attention.q_stride;
#pragma unroll
    for (int column = 0; column < kHeads / 8; ++column) {
      // Columns beyond the last head repeat it.
      const int head = heads.first_head + min(column * 8 + lane / 4, heads.num_heads - 1);
      const T* row = q + head * kHeadDim;
#pragma unroll
      for (int step = 0; step < kHeadDim / 16; ++step) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const T* const pair = row + step * 16 + Stage::QueryElement(half);
          pairs[step][column][half] = *reinterpret_cast<const uint32_t*>(pair);
        }
      }
    }
  }

  uint32_t pairs[kHeadDim / 16][kHeads / 8][2];
};

// Keys and values of 16-bit floats.
template <typename T, int kHeadDim>
struct ChunkStage<T, T, kHeadDim> {
  using Value = T;  // of products with values
  static constexpr bool kScaled = false;
  static constexpr int kCachedBytes = kChunkTokens * kHeadDim * 2;  // of keys, or values, in the cache
  static constexpr int kRowBytes = 2 * kHeadDim + 16;
  static constexpr int kValuesOffset = kChunkTokens * kRowBytes;
  static constexpr int kBytes = 2 * kValuesOffset;

  // By a warp, of keys or values. Rows that nobody sees become zeros: a weight of zero would not keep their NaN out of
  // the sums.
  static __device__ void Copy(uint32_t to, const char* from, int row_begin, int row_end) {
    constexpr int kPacksPerRow = kHeadDim / 8;
    constexpr int kPacks = kCachedBytes / 16;
    static_assert(kPacks % 32 == 0);
#pragma unroll
    for (int i = 0; i < kPacks / 32; ++i) {
      const int pack = i * 32 + static_cast<int>(threadIdx.x % 32);
      const int row = pack / kPacksPerRow;
      CopyAsyncInOrder(to + 16 * (pack + row), from + 16 * pack, row >= row_begin && row < row_end);
    }
  }

  // Queries as products take them.
  template <int kHeads>
  using Queries = QueryFragments<kHeadDim, kHeads>;

  // Dot products with the chunk's keys; two sums side by side, since each product waits for the one it adds to.
  template <int kHeads>
  static __device__ __forceinline__ void MultiplyKeys(const Queries<kHeads>& q, uint32_t keys,
                                                      float (&dots)[kHeads / 8][4]) {
    const int lane = threadIdx.x % 32;
    // Tokens 0 and 8 of columns 0, then of columns 8.
    const uint32_t address = keys + lane % 16 * kRowBytes + lane / 16 * 16;
    float sums[2][kHeads / 8][4] = {};
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      uint32_t k[4];
      LoadMatrices(k, address + step * 32);
#pragma unroll
      for (int column = 0; column < kHeads / 8; ++column) {
        const uint32_t(&pairs)[2] = q.pairs[step][column];
        MultiplyAdd16x8x16<T>(sums[step % 2][column], k, pairs[0], pairs[1]);
      }
    }
#pragma unroll
    for (int column = 0; column < kHeads / 8; ++column) {
#pragma unroll
      for (int j = 0; j < 4; ++j) dots[column][j] = sums[0][column][j] + sums[1][column][j];
    }
  }

  // Elements 32 * pair and the 16 after them as rows, of the tokens.
  static __device__ __forceinline__ void LoadValues(uint32_t values, int pair, uint32_t (&v)[2][4]) {
    const int lane = threadIdx.x % 32;
    // Transposed: elements 0 and 8 of tokens 0, then of tokens 8.
    const uint32_t address = values + (lane / 16 * 8 + lane % 8) * kRowBytes + lane / 8 % 2 * 16;
#pragma unroll
    for (int i = 0; i < 2; ++i) LoadMatricesTransposed(v[i], address + (2 * pair + i) * 32);
  }

  // The first of two elements that half `half` of the second operand holds in this lane, of each 16.
  static __device__ int QueryElement(int half) { return threadIdx.x % 4 * 2 + half * 8; }
  // The element that is the lane's first (half 0) or second row, of each 16.
  static __device__ int OutElement(int half) { return threadIdx.x % 32 / 4 + half * 8; }
};

}  // namespace heddle::cuda
