// Prefill with the tensor-core instructions of compute capability 8.0: a block computes a tile of rows, each of its
// warps 16 or 32 of them with all keys. Keys and values of 64 or 32 tokens at a time pass through shared memory, the
// values loaded while scores are computed and the next keys while values are added up. Those of an int8 cache arrive
// as they are, in a place of their own, and all warps together make floats of them once they are there.
#pragma once

#include "attention/prefill.h"
#include "attention/prefill_mma_context.cuh"
#include "attention/prefill_softmax.cuh"

namespace heddle::cuda {

template <typename T, int kHeadDim, bool kInt8, bool kSoftCap>
class MmaBlock {
  using Shape = MmaShape<kHeadDim, kInt8>;
  static constexpr int kFragments = Shape::kFragments;
  static constexpr int kKeyTiles = Shape::kKeys / 8;
  static constexpr int kValueTiles = kHeadDim / 8;

 public:
  __device__ MmaBlock(const AttentionParameters& p, const PrefillTile& tile, uint8_t* shared)
      : p_(p),
        tile_(tile),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32),
        first_position_(tile.context + RowOf(0, 0, 0) / p.group_size),
        last_position_(tile.context + RowOf(kFragments - 1, 1, 31) / p.group_size),
        q_(SharedAddress(shared)),
        k_(q_ + Shape::kRows * Shape::kRowBytes),
        v_(k_ + Shape::kKeys * Shape::kRowBytes),
        context_(p, tile, k_, v_, shared + (Shape::kRows + 2 * Shape::kKeys) * Shape::kRowBytes),
        lane_q_(q_ + SwizzledOffset<Shape::kChunks>(16 * warp_ * kFragments + lane_ % 16, lane_ / 16)),
        lane_k_(k_ + SwizzledOffset<Shape::kChunks>(lane_ / 16 * 8 + lane_ % 8, lane_ / 8 % 2)),
        lane_v_(v_ + SwizzledOffset<Shape::kChunks>(lane_ % 16, lane_ / 16)) {}

  __device__ void Run() {
    const int first = tile_.key_begin / Shape::kKeys;
    const int last = (tile_.key_end - 1) / Shape::kKeys;
    LoadQueries();
    context_.LoadKeys(last);
    CommitCopies();
    for (int block = last; block >= first; --block) {
      // Keys have come, and all warps are done with the values before these.
      WaitForCopies<0>();
      __syncthreads();
      context_.LoadValues(block);
      CommitCopies();
      context_.ConvertKeys(block);
      float scores[kFragments][kKeyTiles][4] = {};
      MultiplyKeys(scores);
      // Values have come, and all warps are done with the keys.
      WaitForCopies<0>();
      __syncthreads();
      if (block > first) context_.LoadKeys(block - 1);
      CommitCopies();
      context_.ConvertValues(block);
      uint32_t probabilities[kFragments][kKeyTiles / 2][4];
#pragma unroll
      for (int f = 0; f < kFragments; ++f) Softmax(scores[f], block * Shape::kKeys, f, probabilities[f]);
      MultiplyValues(probabilities);
    }
#pragma unroll
    for (int f = 0; f < kFragments; ++f) {
      StoreNormalized<T, 0>(RowOut(f, 0), out_[f], rows_[f]);
      StoreNormalized<T, 1>(RowOut(f, 1), out_[f], rows_[f]);
    }
  }

 private:
  // The row of the sequence that is row `row` of a lane's fragment.
  __device__ int RowOf(int fragment, int row, int lane) const {
    return tile_.first_row + 16 * (warp_ * kFragments + fragment) + 8 * row + lane / 4;
  }

  __device__ T* RowOut(int fragment, int row) const {
    const int index = RowOf(fragment, row, lane_);
    return index < tile_.end_row ? static_cast<T*>(p_.out) + RowOffset(p_, tile_, index, p_.out_stride) : nullptr;
  }

  __device__ void LoadQueries() const {
    const T* q = static_cast<const T*>(p_.q);
#pragma unroll 4
    for (int i = threadIdx.x; i < Shape::kRows * Shape::kChunks; i += Shape::kThreads) {
      const int row = i / Shape::kChunks;
      const int chunk = i % Shape::kChunks;
      const bool valid = tile_.first_row + row < tile_.end_row;
      const T* from = valid ? q + RowOffset(p_, tile_, tile_.first_row + row, p_.q_stride) + 8 * chunk : q;
      CopyAsyncInOrder(q_ + SwizzledOffset<Shape::kChunks>(row, chunk), from, valid);
    }
  }

  __device__ void MultiplyKeys(float (&scores)[kFragments][kKeyTiles][4]) const {
#pragma unroll
    for (int k = 0; k < kHeadDim / 16; ++k) {
      uint32_t queries[kFragments][4];
#pragma unroll
      for (int f = 0; f < kFragments; ++f) {
        LoadMatrices(queries[f], SkipChunkPairs<Shape::kChunks>(lane_q_, k) + 16 * f * Shape::kRowBytes);
      }
#pragma unroll
      for (int j = 0; j < kKeyTiles; j += 2) {
        uint32_t keys[4];
        LoadMatrices(keys, SkipChunkPairs<Shape::kChunks>(lane_k_, k) + 8 * j * Shape::kRowBytes);
#pragma unroll
        for (int f = 0; f < kFragments; ++f) {
          MultiplyAdd16x8x16<T>(scores[f][j], queries[f], keys[0], keys[1]);
          MultiplyAdd16x8x16<T>(scores[f][j + 1], queries[f], keys[2], keys[3]);
        }
      }
    }
  }

  __device__ void Softmax(float (&scores)[kKeyTiles][4], int first_key, int fragment,
                          uint32_t (&probabilities)[kKeyTiles / 2][4]) {
    if constexpr (kSoftCap) {
#pragma unroll
      for (int j = 0; j < kKeyTiles; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) scores[j][e] = Score(p_.score, scores[j][e]);
      }
    }
    if (first_key + Shape::kKeys > first_position_ + 1 || first_key < KeyBegin(last_position_, p_.sliding_window)) {
      VisibleKeys keys;
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const int position = tile_.context + RowOf(fragment, row, lane_) / p_.group_size;
        keys.begin[row] = KeyBegin(position, p_.sliding_window) - first_key;
        keys.end[row] = position + 1 - first_key;
      }
      Mask(scores, keys);
    }
    float rescale[2];
    Exponentiate(scores, kSoftCap ? 1.0f : p_.score.factor, rows_[fragment], rescale);
    Rescale(out_[fragment], rescale);
    PackFragment<T>(probabilities, scores);
  }

  __device__ void MultiplyValues(const uint32_t (&probabilities)[kFragments][kKeyTiles / 2][4]) {
#pragma unroll
    for (int k = 0; k < kKeyTiles / 2; ++k) {
#pragma unroll
      for (int j = 0; j < kValueTiles; j += 2) {
        uint32_t values[4];
        LoadMatricesTransposed(values, SkipChunkPairs<Shape::kChunks>(lane_v_, j / 2) + 16 * k * Shape::kRowBytes);
#pragma unroll
        for (int f = 0; f < kFragments; ++f) {
          MultiplyAdd16x8x16<T>(out_[f][j], probabilities[f][k], values[0], values[1]);
          MultiplyAdd16x8x16<T>(out_[f][j + 1], probabilities[f][k], values[2], values[3]);
        }
      }
    }
  }

  const AttentionParameters& p_;
  const PrefillTile& tile_;
  const int warp_;
  const int lane_;
  const int first_position_;  // of the warp's rows
  const int last_position_;
  const uint32_t q_;
  const uint32_t k_;
  const uint32_t v_;
  const MmaContext<T, kHeadDim, kInt8> context_;
  // What the lane reads first of the warp's queries, of keys and of values; the rows of other reads are multiples of 16
  // further, which the swizzle does not see.
  const uint32_t lane_q_;
  const uint32_t lane_k_;
  const uint32_t lane_v_;
  float out_[kFragments][kValueTiles][4] = {};
  SoftmaxRows rows_[kFragments];
};

template <typename T, int kHeadDim, bool kInt8, bool kSoftCap>
__global__ void __launch_bounds__(MmaShape<kHeadDim, kInt8>::kThreads)
    PrefillMmaKernel(const __grid_constant__ AttentionParameters p) {
  extern __shared__ __align__(128) uint8_t shared[];
  AllowNext();
  WaitForPrevious();
  const PrefillTile tile = PrefillTileFinder(p, MmaShape<kHeadDim, kInt8>::kRows).Find(blockIdx.x);
  if (tile.is_empty()) return;
  MmaBlock<T, kHeadDim, kInt8, kSoftCap>(p, tile, shared).Run();
}

template <typename T, int kHeadDim, bool kInt8>
void LaunchMma(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op) {
  using Shape = MmaShape<kHeadDim, kInt8>;
  const auto kernel =
      op.soft_cap == 0 ? PrefillMmaKernel<T, kHeadDim, kInt8, false> : PrefillMmaKernel<T, kHeadDim, kInt8, true>;
  const int64_t blocks = MaxPrefillTiles(op, Shape::kRows) * op.cache.num_kv_heads;
  AllowShared(kernel, Shape::kSharedBytes);
  Launch(stream, kernel, dim3(static_cast<unsigned>(blocks)), dim3(Shape::kThreads), Shape::kSharedBytes,
         MakeAttentionParameters(op));
}

template <typename T, bool kInt8>
void PrefillMmaHeads(const HeddleCudaStream& stream, const HeddleCudaPagedAttention& op) {
  switch (op.cache.head_dim) {
    case 64:
      return LaunchMma<T, 64, kInt8>(stream, op);
    case 96:
      return LaunchMma<T, 96, kInt8>(stream, op);
    case 128:
      return LaunchMma<T, 128, kInt8>(stream, op);
    default:
      return LaunchMma<T, 256, kInt8>(stream, op);
  }
}

}  // namespace heddle::cuda
