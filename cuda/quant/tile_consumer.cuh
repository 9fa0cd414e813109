// A warpgroup that multiplies: 64 rows of a tile's weights by its rows of x, from the stages of the ring, and then
// writes.
#pragma once

#include "quant/tile_output.cuh"
#include "quant/tile_products.cuh"
#include "quant/tile_ring.cuh"
#include "quant/tile_sums.cuh"

namespace heddle::cuda {

template <class Products>
class TileConsumer {
 public:
  // `flag` and `buffers` are the consumer's shared memory: see TileSums and TileOutput.
  __device__ __forceinline__ TileConsumer(const TileParameters& p, TileRing<Products>& ring, int consumer,
                                          uint8_t* buffers, uint32_t* flag)
      : p_(p), ring_(ring), consumer_(consumer), buffers_(buffers), partial_(p, consumer, 1 + consumer, flag) {}

  __device__ __forceinline__ void Run() {
    TileSchedule schedule = ring_.schedule();
    TilePiece piece;
    while (schedule.Next(piece)) {
      Sum sums[kTiles][4] = {};
      MultiplySteps(piece.end - piece.begin, sums);
      partial_.Announce();
      if (p_.num_splits == 1) {
        Finish(schedule, piece, sums);
      } else if (p_.num_splits == 2) {
        FinishSplit<2>(piece, sums);
      } else {
        FinishSplit<4>(piece, sums);
      }
    }
    partial_.Announce();
    JoinAll();
    hopper::WaitForStoresToRead<0>();
  }

 private:
  using Sum = typename Products::Sum;
  static constexpr int kXRows = Products::kXRows;
  static constexpr int kTiles = kXRows / 8;
  static constexpr int kBuffers = NumStoreBuffers(kXRows);
  static constexpr float kUnit = Products::kSumUnit;

  __device__ __forceinline__ void MultiplySteps(int num_steps, Sum (&sums)[kTiles][4]) {
    RingPosition last;
    for (int i = 0; i < num_steps; ++i) {
      ring_.WaitForStage(position_);
      Products::Multiply(sums, ring_.Stage(position_), consumer_);
      if (Products::kGroups == 0) {
        ring_.Release(position_);
      } else if (i > 0) {
        hopper::WaitForProducts<Products::kGroups>();
        ring_.Release(last);
      }
      last = position_;
      position_.Advance(p_.num_stages);
    }
    hopper::WaitForProducts<0>();
    if (Products::kGroups > 0) ring_.Release(last);
    hopper::Settle(sums);
  }

  __device__ __forceinline__ void Finish(const TileSchedule& schedule, const TilePiece& piece, Sum (&sums)[kTiles][4]) {
    if constexpr (Products::kHasOutliers) {
      float scaled[kTiles][4];
      Scale(FirstRow(piece), sums, scaled);
      MultiplyOutliers(piece, scaled);
      Write(nullptr, piece, 0, scaled);
    } else {
      if (schedule.IsWhole(piece)) {
        Write(p_.row_scales, piece, 0, sums);
      } else {
        partial_.Leave(sums, piece);
      }
    }
  }

  // This block's share of the tiles that it has pieces of.
  __device__ __forceinline__ void JoinAll() {
    if constexpr (!Products::kHasOutliers) {
      TileSchedule schedule = ring_.schedule();
      TilePiece piece;
      while (schedule.NextShared(piece)) {
        if (!schedule.IsWhole(piece)) Join(schedule.FirstBlock(piece.tile), schedule.LastBlock(piece.tile), piece);
      }
    }
  }

  __device__ __forceinline__ void Join(int first_block, int last_block, const TilePiece& piece) {
    constexpr int kRows = kXRows < 256 ? 16 : 32;  // of a part
    TileOutput<Sum, kRows, kBuffers> output(p_, kUnit, p_.row_scales, piece.weight_tile, consumer_, buffers_);
    partial_.ForShare(piece.tile, first_block, last_block, kXRows / kRows, [&](int part) {
      Sum sums[kRows / 8][4] = {};
      partial_.template Add<kXRows>(sums, first_block, last_block, part * kRows);
      output.Write(FirstRow(piece) + part * kRows, sums);
    });
  }

  __device__ __forceinline__ void MultiplyOutliers(const TilePiece& piece, float (&sums)[kTiles][4]) {
    const int num_parts = ring_.NumOutlierParts(piece);
    for (int i = 0; i < num_parts; ++i) {
      ring_.WaitForStage(position_);
      Products::MultiplyOutliers(sums, ring_.Stage(position_), consumer_);
      hopper::WaitForProducts<0>();
      hopper::Settle(sums);
      ring_.Release(position_);
      position_.Advance(p_.num_stages);
    }
  }

  // Each block of the cluster adds what all have of its share of the rows of x, and writes that.
  template <int kSplits>
  __device__ __forceinline__ void FinishSplit(const TilePiece& piece, Sum (&sums)[kTiles][4]) {
    if constexpr (CanSplit<Products>(kSplits)) {
      constexpr int kShare = kTiles / kSplits;
      const int first_row = ring_.Rank() * kShare * 8;
      Sum share[kShare][4] = {};
      if constexpr (Products::kHasOutliers) {
        float outliers[kTiles][4] = {};
        MultiplyOutliers(piece, outliers);
        Exchange<kSplits>(sums, share);
        float scaled[kShare][4];
        Scale(FirstRow(piece) + first_row, share, scaled);
        Exchange<kSplits>(outliers, scaled);
        Write(nullptr, piece, first_row, scaled);
      } else {
        Exchange<kSplits>(sums, share);
        Write(p_.row_scales, piece, first_row, share);
      }
    }
  }

  // Adds to `share` what all blocks of the cluster have of it in their sums. These meet where the rings were.
  template <int kSplits, typename Value>
  __device__ __forceinline__ void Exchange(const Value (&sums)[kTiles][4], Value (&share)[kTiles / kSplits][4]) {
    constexpr int kShare = kTiles / kSplits;
    const uint32_t ring = SharedAddress(ring_.Stage({}));
    const auto place = [&](int from, int j) {
      return ring + (((from * kTileConsumers + consumer_) * kShare + j) * 128 + threadIdx.x % 128) * 16;
    };
    hopper::SyncCluster();
#pragma unroll
    for (int to = 0; to < kSplits; ++to) {
#pragma unroll
      for (int j = 0; j < kShare; ++j) {
        const Value(&quad)[4] = sums[to * kShare + j];
        hopper::StoreToBlock(to, place(ring_.Rank(), j),
                             {BitsOf(quad[0]), BitsOf(quad[1]), BitsOf(quad[2]), BitsOf(quad[3])});
      }
    }
    hopper::SyncCluster();
#pragma unroll
    for (int from = 0; from < kSplits; ++from) {
#pragma unroll
      for (int j = 0; j < kShare; ++j) {
        const float4 quad = LoadShared(place(from, j));
        share[j][0] += SumOf<Value>(__float_as_uint(quad.x));
        share[j][1] += SumOf<Value>(__float_as_uint(quad.y));
        share[j][2] += SumOf<Value>(__float_as_uint(quad.z));
        share[j][3] += SumOf<Value>(__float_as_uint(quad.w));
      }
    }
  }

  __device__ __forceinline__ int FirstRow(const TilePiece& piece) const { return piece.x_tile * kXRows; }

  // sums * scales of x's rows from first_row on, in units of kUnit as products of outliers are.
  template <int kSize>
  __device__ __forceinline__ void Scale(int first_row, const Sum (&sums)[kSize][4], float (&scaled)[kSize][4]) const {
#pragma unroll
    for (int j = 0; j < kSize; ++j) {
      const float2 row_scales = RowScalesOf(p_.row_scales, first_row, j);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float row_scale = e % 2 == 0 ? row_scales.x : row_scales.y;
        scaled[j][e] = static_cast<float>(sums[j][e]) * (row_scale * kUnit);
      }
    }
  }

  // Rows of the piece's tile from `row` on.
  template <typename Value, int kSize>
  __device__ __forceinline__ void Write(const float* row_scales, const TilePiece& piece, int row,
                                        const Value (&sums)[kSize][4]) {
    TileOutput<Value, kSize * 8, kBuffers>(p_, kUnit, row_scales, piece.weight_tile, consumer_, buffers_)
        .Write(FirstRow(piece) + row, sums);
  }

  const TileParameters& p_;
  TileRing<Products>& ring_;
  const int consumer_;
  uint8_t* const buffers_;
  TileSums partial_;
  RingPosition position_;
};

}  // namespace heddle::cuda
