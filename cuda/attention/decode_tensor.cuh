// Decode attention on tensor cores, for queries of a 16-bit type and caches of the same or of int8.
//
// A product has the 16 tokens of a chunk (keys) or 16 elements of the head (values) for rows and the query heads of a
// tile for columns, eight a product, so that groups of up to eight heads waste nothing and keys and values are read
// once for all of them.
#pragma once

#include "attention/decode_combine.cuh"
#include "attention/decode_pipeline.cuh"
#include "common/launch.h"

namespace heddle::cuda {

// The softmax of one warp's chunks of a piece. A lane's columns are heads 2 * (lane % 4) and the next of each eight;
// its rows are tokens lane / 4 and that + 8, or two elements of each 16 of the head.
template <typename T, class Stage, int kHeadDim, int kHeads>
class WarpSoftmax {
 public:
  using Queries = typename Stage::template Queries<kHeads>;

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
  __device__ void Attend(const Queries& q, uint32_t stage, const Chunk& chunk, const ScoreScale& scale) {
    const uint32_t values = stage + Stage::kValuesOffset;
    float scores[kColumns][4];
    Stage::template MultiplyKeys<kHeads>(q, stage, scores);
    MaskAndScale(chunk, stage, scale, scores);
    const ValueScales value_scales(chunk, values);
    UpdateMax(scores, value_scales);
    uint32_t weights[kColumns][2];
    MakeWeights(scores, value_scales, weights);
    AddValues(values, weights);
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
        float* row = buffer.Values(warp, head);
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
          row[step * 16 + Stage::OutElement(0)] = values_[step][column][j];
          row[step * 16 + Stage::OutElement(1)] = values_[step][column][j + 2];
        }
        if (lane / 4 == 0) buffer.Totals(warp, head) = make_float2(max_[column][j], sum);
      }
    }
  }

 private:
  using Value = typename Stage::Value;
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

  // The token that is the lane's row 0 or 8.
  __device__ static int TokenOf(int half) { return static_cast<int>(threadIdx.x % 32 / 4) + half * 8; }
  __device__ static bool IsSeen(const Chunk& chunk, int token) { return token >= chunk.begin && token < chunk.end; }

  // The scales of the values of the lane's tokens, zero of those that are not seen; and their logarithms, by which a
  // score says how large its weight is once that is scaled. Far below any value that counts, these end: a weight before
  // it is scaled must not overflow.
  struct ValueScales {
    __device__ ValueScales(const Chunk& chunk, uint32_t values) {
      if constexpr (Stage::kScaled) {
        constexpr float kLeast = 0x1p-60f;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          factor[half] = IsSeen(chunk, TokenOf(half)) ? Stage::ScaleOf(values, TokenOf(half)) : 0.0f;
          exponent[half] = __log2f(fmaxf(factor[half], kLeast));
        }
      }
    }

    float factor[2] = {1, 1};
    float exponent[2] = {0, 0};
  };

  __device__ static void MaskAndScale(const Chunk& chunk, uint32_t keys, const ScoreScale& scale,
                                      float (&scores)[kColumns][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = TokenOf(half);
      float key_scale = 1;
      if constexpr (Stage::kScaled) key_scale = Stage::ScaleOf(keys, token);
#pragma unroll
      for (int column = 0; column < kColumns; ++column) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float& score = scores[column][half * 2 + j];
          score = IsSeen(chunk, token) ? Score(scale, score * key_scale) : -INFINITY;
        }
      }
    }
  }

  // Makes sums and values relative to the largest score so far, which seldom changes after the first chunks.
  __device__ void UpdateMax(const float (&scores)[kColumns][4], const ValueScales& value_scales) {
    float new_max[kColumns][2];
    bool is_larger = false;
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float larger =
            fmaxf(scores[column][j] + value_scales.exponent[0], scores[column][j + 2] + value_scales.exponent[1]);
        new_max[column][j] = fmaxf(max_[column][j], MaxOfRows(larger));
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

  // The sums are of the weights as the product with the values has them, rounded, so that these remain an average;
  // but where values' scales go into the weights, of those before.
  __device__ void MakeWeights(const float (&scores)[kColumns][4], const ValueScales& value_scales,
                              uint32_t (&weights)[kColumns][2]) {
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float2 weight = make_float2(exp2f(scores[column][half * 2] - max_[column][0]),
                                    exp2f(scores[column][half * 2 + 1] - max_[column][1]));
        const float factor = value_scales.factor[half];
        const uint32_t packed = PackPair<Value>(weight.x * factor, weight.y * factor);
        if constexpr (!Stage::kScaled) weight = UnpackPair<Value>(packed);
        sum_[column][0] += weight.x;
        sum_[column][1] += weight.y;
        weights[column][half] = TransposeMatrix(packed);
      }
    }
  }

  __device__ void AddValues(uint32_t values, const uint32_t (&weights)[kColumns][2]) {
#pragma unroll
    for (int pair = 0; pair < kSteps / 2; ++pair) {
      uint32_t v[2][4];
      Stage::LoadValues(values, pair, v);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int column = 0; column < kColumns; ++column) {
          MultiplyAdd16x8x16<Value>(values_[2 * pair + i][column], v[i], weights[column][0], weights[column][1]);
        }
      }
    }
  }

  float max_[kColumns][2];
  float sum_[kColumns][2];  // of the lane's own rows
  float values_[kSteps][kColumns][4];
};

template <typename T, typename C, int kHeadDim, int kHeads>
__global__ void __launch_bounds__(kDecodeThreads) DecodeTensorKernel(const __grid_constant__ DecodeParameters p) {
  using Stage = ChunkStage<T, C, kHeadDim>;
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
  ChunkPipeline<Stage> pipeline(p, line, line.Begin(block), end, SharedAddress(shared) + warp * warp_bytes);
  WaitForPrevious();
  pipeline.Start();

  Piece next = line.PieceAt(line.Begin(block), end);
  QueryFragments<kHeadDim, kHeads> next_q;
  next_q.template Load<T, Stage>(p, next);
  WarpSoftmax<T, Stage, kHeadDim, kHeads> softmax;
  for (bool is_last = false; !is_last;) {
    const Piece piece = next;
    const typename Stage::template Queries<kHeads> q = next_q;
    is_last = piece.first_unit + piece.end == end;
    if (!is_last) {
      next = line.PieceAfter(piece, end);
      next_q.template Load<T, Stage>(p, next);
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
