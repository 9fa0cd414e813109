// A chunk of an int8 cache: the rows of keys, or values, are followed by the scales of all.
//
// Keys are multiplied as they are, by queries in two int8, of which the second counts what the first rounds: together
// 15 bits, finer than a query of 16 bits is itself. Values become floats on their way to the product. Scores and
// weights are what is scaled.
#pragma once

#include "attention/decode_chunk.cuh"
#include "common/int8_floats.cuh"

namespace heddle::cuda {

// Of each head: x = (high * kLowSteps + low) * scale.
template <typename T, int kHeadDim, int kHeads>
struct Int8Queries {
  static constexpr int kColumns = kHeads / 8;
  static constexpr int kLowSteps = 254;

  __device__ Int8Queries(const QueryFragments<kHeadDim, kHeads>& q) {
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
      const float magnitude = MagnitudeOf(q, column);
      constexpr float kLeast = 1e-30f;  // below, 127 / magnitude overflows
      const float inverse = magnitude >= kLeast ? 127.0f / magnitude : 0.0f;
#pragma unroll
      for (int step = 0; step < kHeadDim / 16; ++step)
        Round(q.pairs[step][column], inverse, step / 2, column, step % 2);
      // An infinity makes it NaN, as NaN does.
      const float own = magnitude * 0.0f == 0.0f ? magnitude / (127.0f * kLowSteps) : magnitude - magnitude;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        scale[column][j] = __shfl_sync(0xffffffffu, own, (threadIdx.x % 4 * 2 + j) * 4);
      }
    }
  }

  uint32_t high[kHeadDim / 32][kColumns][2];
  uint32_t low[kHeadDim / 32][kColumns][2];
  float scale[kColumns][2];  // of the heads that are the lane's columns of scores

 private:
  // Of the head that the four lanes have between them; those of infinity and NaN are the largest.
  __device__ static float MagnitudeOf(const QueryFragments<kHeadDim, kHeads>& q, int column) {
    uint32_t bits = 0;
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
#pragma unroll
      for (const uint32_t pair : q.pairs[step][column]) bits = __vmaxu2(bits, pair & 0x7fff7fffu);
    }
    bits = __vmaxu2(bits, __shfl_xor_sync(0xffffffffu, bits, 1));
    bits = __vmaxu2(bits, __shfl_xor_sync(0xffffffffu, bits, 2));
    return UnpackPair<T>(max(bits & 0xffffu, bits >> 16)).x;
  }

  // Four elements.
  __device__ void Round(const uint32_t (&pairs)[2], float inverse, int step, int column, int half) {
    constexpr float kInteger = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded, and lies in the low bits
    uint32_t highs[4];
    uint32_t lows[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 x = UnpackPair<T>(pairs[i / 2]);
      const float y = (i % 2 == 0 ? x.x : x.y) * inverse;
      const float rounded = y + kInteger;
      highs[i] = __float_as_uint(rounded);
      lows[i] = __float_as_uint(fmaf(y - (rounded - kInteger), kLowSteps, kInteger));
    }
    high[step][column][half] = PackBytes(highs);
    low[step][column][half] = PackBytes(lows);
  }

  // The low byte of each.
  __device__ static uint32_t PackBytes(const uint32_t (&words)[4]) {
    return __byte_perm(__byte_perm(words[0], words[1], 0x0040), __byte_perm(words[2], words[3], 0x0040), 0x5410);
  }
};

// That a row is int8 makes it finite, whoever wrote it: zero as the weight and the scale of a token that is not seen
// keeps it out of the sums.
template <typename T, int kHeadDim>
struct ChunkStage<T, int8_t, kHeadDim> {
  using Value = __half;
  static constexpr bool kScaled = true;
  static constexpr int kCachedBytes = CacheTileBytes(kHeadDim);
  static constexpr int kRowBytes = kHeadDim + 16;
  static constexpr int kScalesOffset = kChunkTokens * kRowBytes;
  static constexpr int kValuesOffset = kScalesOffset + kChunkTokens * static_cast<int>(sizeof(float));
  static constexpr int kBytes = 2 * kValuesOffset;
  static_assert(kChunkTokens == kCacheTileTokens);

  static __device__ void Copy(uint32_t to, const char* from, int, int) {
    constexpr int kPacksPerRow = kHeadDim / 16;
    constexpr int kPacks = kChunkTokens * kPacksPerRow;
    constexpr int kScalePacks = kCachedBytes / 16 - kPacks;
    static_assert(kPacks % 32 == 0 && kScalePacks <= 32);
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < kPacks / 32; ++i) {
      const int pack = i * 32 + lane;
      CopyAsyncInOrder(to + 16 * (pack + pack / kPacksPerRow), from + 16 * pack);
    }
    if (lane < kScalePacks) CopyAsyncInOrder(to + kScalesOffset + 16 * lane, from + 16 * (kPacks + lane));
  }

  template <int kHeads>
  using Queries = Int8Queries<T, kHeadDim, kHeads>;

  // But for the keys' scales.
  template <int kHeads>
  static __device__ __forceinline__ void MultiplyKeys(const Queries<kHeads>& q, uint32_t keys,
                                                      float (&dots)[kHeads / 8][4]) {
    const int lane = threadIdx.x % 32;
    const uint32_t address = keys + lane % 16 * kRowBytes + lane / 16 * 16;
    int32_t high[kHeads / 8][4] = {};
    int32_t low[kHeads / 8][4] = {};
#pragma unroll
    for (int step = 0; step < kHeadDim / 32; ++step) {
      uint32_t k[4];
      LoadMatrices(k, address + step * 32);
#pragma unroll
      for (int column = 0; column < kHeads / 8; ++column) {
        MultiplyAdd16x8x32(high[column], k, q.high[step][column][0], q.high[step][column][1]);
        MultiplyAdd16x8x32(low[column], k, q.low[step][column][0], q.low[step][column][1]);
      }
    }
#pragma unroll
    for (int column = 0; column < kHeads / 8; ++column) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int32_t steps = high[column][j] * Queries<kHeads>::kLowSteps + low[column][j];
        dots[column][j] = static_cast<float>(steps) * q.scale[column][j % 2];
      }
    }
  }

  // Transposed by pairs of elements: a lane has two neighbouring elements of two neighbouring tokens, and takes the
  // elements for rows g and g + 8.
  static __device__ __forceinline__ void LoadValues(uint32_t values, int pair, uint32_t (&v)[2][4]) {
    const int lane = threadIdx.x % 32;
    uint32_t packed[4];
    LoadMatricesTransposed(packed, values + lane % 16 * kRowBytes + lane / 16 * 16 + pair * 32);
    static_assert(kInt8FloatUnit<Value> == 1.0f);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[i / 2][i % 2 * 2] = Int8PairToFloats<Value, 0, 2>(packed[i]);
      v[i / 2][i % 2 * 2 + 1] = Int8PairToFloats<Value, 1, 3>(packed[i]);
    }
  }

  // Int8 products have four neighbours for each lane.
  static __device__ int QueryElement(int half) { return threadIdx.x % 4 * 4 + half * 2; }
  static __device__ int OutElement(int half) { return threadIdx.x % 32 / 4 * 2 + half; }

  // Of token `token`, beside keys or values.
  static __device__ __forceinline__ float ScaleOf(uint32_t rows, int token) {
    return __uint_as_float(LoadSharedWord(rows + kScalesOffset + token * static_cast<int>(sizeof(float))));
  }
};

}  // namespace heddle::cuda
