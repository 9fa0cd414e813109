// Decode attention on tensor cores, for queries and caches of one 16-bit type.
//
// A product has the 16 tokens of a chunk (keys) or 16 elements of the head (values) for rows and the query heads of a
// tile for columns, eight a product, so that groups of up to eight heads waste nothing and keys and values are read
// once for all of them.
#pragma once

#include "attention/decode_combine.cuh"
#include "attention/decode_pipeline.cuh"
#include "common/launch.h"

namespace heddle::cuda {

// Queries as the second operand of products: pairs of elements of the head lane / 4 of each eight.
template <int kHeadDim, int kHeads>
struct QueryFragments {
  template <typename T>
  __device__ void Load(const DecodeParameters& p, const Piece& piece) {
    const HeadTile heads(p, piece.tile);
    const int lane = threadIdx.x % 32;
    const T* q = static_cast<const T*>(p.attention.q) + piece.seq * p.attention.q_stride;
#pragma unroll
    for (int column = 0; column < kHeads / 8; ++column) {
      // Columns beyond the last head repeat it.
      const int head = heads.first_head + min(column * 8 + lane / 4, heads.num_heads - 1);
      const T* row = q + head * kHeadDim + lane % 4 * 2;
#pragma unroll
      for (int step = 0; step < kHeadDim / 16; ++step) {
        pairs[step][column][0] = *reinterpret_cast<const uint32_t*>(row + step * 16);
        pairs[step][column][1] = *reinterpret_cast<const uint32_t*>(row + step * 16 + 8);
      }
    }
  }

  uint32_t pairs[kHeadDim / 16][kHeads / 8][2];
};

// The softmax of one warp's chunks of a piece. A lane's columns are heads 2 * (lane % 4) and the next of each eight;
// its rows, tokens or elements of the head, are lane / 4 and that + 8 of each 16.
template <typename T, int kHeadDim, int kHeads>
class WarpSoftmax {
 public:
  using Stage = ChunkStage<kHeadDim>;

  __device__ void Clear() {
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        max_[column][j] = -INFINITY;
        sum_[column][j] = 0;
      }
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
#pragma unroll
        for (int j = 0; j < 4; ++j) values_[step][column][j] = 0;
      }
    }
  }

  // `chunk` has a token that is seen.
  __device__ void Attend(const QueryFragments<kHeadDim, kHeads>& q, uint32_t stage, const Chunk& chunk,
                         const ScoreScale& scale) {
    float scores[kColumns][4];
    MultiplyKeys(q, stage, scores);
    MaskAndScale(chunk, scale, scores);
    UpdateMax(scores);
    uint32_t weights[kColumns][2];
    MakeWeights(scores, weights);
    AddValues(stage + Stage::kValuesOffset, weights);
  }

  __device__ void Write(const MergeBuffer& buffer, int num_heads) {
    const int lane = threadIdx.x % 32;
    const int warp = threadIdx.x / 32;
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float sum = SumOfRows(sum_[column][j]);
        const int head = column * 8 + lane % 4 * 2 + j;
        if (head >= num_heads) continue;
        float* row = buffer.Values(warp, head) + lane / 4;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
          row[step * 16] = values_[step][column][j];
          row[step * 16 + 8] = values_[step][column][j + 2];
        }
        if (lane / 4 == 0) buffer.Totals(warp, head) = make_float2(max_[column][j], sum);
      }
    }
  }

 private:
  static constexpr int kColumns = kHeads / 8;
  static constexpr int kSteps = kHeadDim / 16;

  __device__ static float MaxOfRows(float x) {
#pragma unroll
    for (int offset = 4; offset < 32; offset *= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
    return x;
  }
  __device__ static float SumOfRows(float x) {
#pragma unroll
    for (int offset = 4; offset < 32; offset *= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
  }

  // Two sums side by side, since each product waits for the one it adds to.
  __device__ static void MultiplyKeys(const QueryFragments<kHeadDim, kHeads>& q, uint32_t keys,
                                      float (&scores)[kColumns][4]) {
    const int lane = threadIdx.x % 32;
    // Tokens 0 and 8 of columns 0, then of columns 8.
    const uint32_t address = keys + lane % 16 * Stage::kRowBytes + lane / 16 * 16;
    float sums[2][kColumns][4] = {};
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t k[4];
      LoadMatrices(k, address + step * 32);
#pragma unroll
      for (int column = 0; column < kColumns; ++column) {
        MultiplyAdd16x8x16<T>(sums[step % 2][column], k, q.pairs[step][column][0], q.pairs[step][column][1]);
      }
    }
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
#pragma unroll
      for (int j = 0; j < 4; ++j) scores[column][j] = sums[0][column][j] + sums[1][column][j];
    }
  }

  __device__ static void MaskAndScale(const Chunk& chunk, const ScoreScale& scale, float (&scores)[kColumns][4]) {
    const int row = threadIdx.x % 32 / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = row + half * 8;
      const bool is_seen = token >= chunk.begin && token < chunk.end;
#pragma unroll
      for (int column = 0; column < kColumns; ++column) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float& score = scores[column][half * 2 + j];
          score = is_seen ? Score(scale, score) : -INFINITY;
        }
      }
    }
  }

  // Makes sums and values relative to the largest score so far, which seldom changes after the first chunks.
  __device__ void UpdateMax(const float (&scores)[kColumns][4]) {
    float new_max[kColumns][2];
    bool is_larger = false;
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        new_max[column][j] = fmaxf(max_[column][j], MaxOfRows(fmaxf(scores[column][j], scores[column][j + 2])));
        is_larger |= new_max[column][j] > max_[column][j];
      }
    }
    if (!__any_sync(0xffffffffu, is_larger)) return;
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float factor = exp2f(max_[column][j] - new_max[column][j]);
        max_[column][j] = new_max[column][j];
        sum_[column][j] *= factor;
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
          values_[step][column][j] *= factor;
          values_[step][column][j + 2] *= factor;
        }
      }
    }
  }

  // The sums are of the weights as the product with the values has them, rounded, so that these remain an average.
  __device__ void MakeWeights(const float (&scores)[kColumns][4], uint32_t (&weights)[kColumns][2]) {
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t packed = PackPair<T>(exp2f(scores[column][half * 2] - max_[column][0]),
                                            exp2f(scores[column][half * 2 + 1] - max_[column][1]));
        const float2 rounded = UnpackPair<T>(packed);
        sum_[column][0] += rounded.x;
        sum_[column][1] += rounded.y;
        weights[column][half] = TransposeMatrix(packed);
      }
    }
  }

  __device__ void AddValues(uint32_t values, const uint32_t (&weights)[kColumns][2]) {
    const int lane = threadIdx.x % 32;
    // Transposed: elements 0 and 8 of tokens 0, then of tokens 8.
    const uint32_t address = values + (lane / 16 * 8 + lane % 8) * Stage::kRowBytes + lane / 8 % 2 * 16;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t v[4];
      LoadMatricesTransposed(v, address + step * 32);
#pragma unroll
      for (int column = 0; column < kColumns; ++column) {
        MultiplyAdd16x8x16<T>(values_[step][column], v, weights[column][0], weights[column][1]);
      }
    }
  }

  float max_[kColumns][2];
  float sum_[kColumns][2];  // of the lane's own rows
  float values_[kSteps][kColumns][4];
};

template <typename T, int kHeadDim, int kHeads>
__global__ void __launch_bounds__(kDecodeThreads) DecodeTensorKernel(const __grid_constant__ DecodeParameters p) {
  using Stage = ChunkStage<kHeadDim>;
  extern __shared__ __align__(16) unsigned char shared[];
  const int warp = threadIdx.x / 32;
  const int warp_bytes = p.num_stages * Stage::kBytes;
  auto* merge_floats = reinterpret_cast<float*>(shared + kDecodeWarps * warp_bytes);
  const MergeBuffer buffer(merge_floats, p.heads_per_tile, kHeadDim);

  AllowNext();
  const WorkLine line(p, reinterpret_cast<int*>(merge_floats + MergeBuffer::Floats(p.heads_per_tile, kHeadDim)));
  const int block = blockIdx.x;
  if (block >= line.num_blocks()) return WaitForPrevious();
  const int end = line.Begin(block + 1);
  ChunkPipeline<kHeadDim> pipeline(p, line, line.Begin(block), end, SharedAddress(shared) + warp * warp_bytes);
  WaitForPrevious();
  pipeline.Start();

  Piece next = line.PieceAt(line.Begin(block), end);
  QueryFragments<kHeadDim, kHeads> next_q;
  next_q.template Load<T>(p, next);
  WarpSoftmax<T, kHeadDim, kHeads> softmax;
  for (bool is_last = false; !is_last;) {
    const Piece piece = next;
    const QueryFragments<kHeadDim, kHeads> q = next_q;
    is_last = piece.first_unit + piece.end == end;
    if (!is_last) {
      next = line.PieceAfter(piece, end);
      next_q.template Load<T>(p, next);
    }
    const HeadTile heads(p, piece.tile);
    const Context context(line.Length(piece.seq), p.attention.sliding_window);
    softmax.Clear();
    for (int unit = piece.begin; unit < piece.end; ++unit) {
      const uint32_t stage = pipeline.Wait();
      const Chunk chunk(context, unit, warp);
      if (!chunk.is_empty()) softmax.Attend(q, stage, chunk, p.attention.score);
      pipeline.Release();
    }
    __syncthreads();
    softmax.Write(buffer, heads.num_heads);
    T* out = static_cast<T*>(p.attention.out) + piece.seq * p.attention.out_stride + heads.first_head * kHeadDim;
    FinishPiece<4>(
        p, line, piece, heads.num_heads, kHeadDim, buffer, [&](int head, int element, const float(&values)[4]) {
          const uint2 packed = make_uint2(PackPair<T>(values[0], values[1]), PackPair<T>(values[2], values[3]));
          *reinterpret_cast<uint2*>(out + head * kHeadDim + element) = packed;
        });
  }
}

}  // namespace heddle::cuda
