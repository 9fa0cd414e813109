// A warpgroup that multiplies: 64 rows of a tile's weights by its rows of x, from the stages of the ring, and then
// writes.
#pragma once

#include <type_traits>

#include "quant/panel_consumer.cuh"
#include "quant/tile_output.cuh"
#include "quant/tile_products.cuh"
#include "quant/tile_ring.cuh"
#include "quant/tile_sums.cuh"

namespace heddle::cuda {

template <class Products>
class TileConsumer {
 public:
  // `flag` and `buffers` are the consumer's shared memory: see TileSums and TileOutput.
  __device__ __forceinline__ TileConsumer(const TileParameters& p, TileRing<Products>& ring,
                                          PanelRing<Products>& panel_ring, int consumer, uint8_t* buffers,
                                          uint32_t* flag)
      : p_(p),
        ring_(ring),
        panels_(p, panel_ring, consumer),
        consumer_(consumer),
        buffers_(buffers),
        partial_(p, consumer, 1 + consumer, flag) {}

  __device__ __forceinline__ void Run() {
    TileSchedule schedule = ring_.schedule();
    TilePiece piece;
    while (schedule.Next(piece)) {
      Sum sums[kTiles][4] = {};
      if constexpr (Products::kHasOutliers) {
        float all_sums[kTiles][4] = {};
        panels_.Begin(piece.x_tile, piece.begin);
        if constexpr (Products::kPanelsAfter) {
          MultiplySteps(piece, sums, StepAlone());
          AddScaled(FirstRow(piece), sums, all_sums);
          MultiplyPanels(piece, all_sums);
        } else {
          MultiplySteps(piece, sums, [&](int step, const uint8_t* stage, const auto& multiply) {
            panels_.Multiply(all_sums, step, stage, multiply);
          });
          hopper::Settle(all_sums);
          AddScaled(FirstRow(piece), sums, all_sums);
        }
        Finish(schedule, piece, all_sums);
      } else {
        MultiplySteps(piece, sums, StepAlone());
        Finish(schedule, piece, sums);
      }
    }
    partial_.Announce();
    JoinAll();
    hopper::WaitForStoresToRead<0>();
  }

 private:
  using Sum = typename Products::Sum;
  // Of a piece. Where there are outliers they have the scales of x's rows already.
  using PieceSum = std::conditional_t<Products::kHasOutliers, float, Sum>;
  static constexpr int kXRows = Products::kXRows;
  static constexpr int kTiles = kXRows / 8;
  static constexpr int kBuffers = NumStoreBuffers(kXRows);
  static constexpr float kUnit = Products::kSumUnit;

  struct StepAlone {
    template <typename Multiply>
    __device__ __forceinline__ void operator()(int, const uint8_t*, const Multiply& multiply) const {
      multiply();
    }
  };

  // body(step, stage, multiply) calls multiply(), which begins the step's products.
  template <typename Body>
  __device__ __forceinline__ void MultiplySteps(const TilePiece& piece, Sum (&sums)[kTiles][4], const Body& body) {
    RingPosition last;
    for (int step = piece.begin; step < piece.end; ++step) {
      const uint8_t* const stage = ring_.Stage(position_);
      ring_.WaitForStage(position_);
      body(step, stage, [&] {
        Products::Multiply(sums, stage, consumer_);
        hopper::WaitForProducts<Products::kGroups>();
      });
      if (Products::kGroups == 0) {
        ring_.Release(position_);
      } else if (step > piece.begin) {
        ring_.Release(last);
      }
      last = position_;
      position_.Advance(p_.num_stages);
    }
    hopper::WaitForProducts<0>();
    if (Products::kGroups > 0) ring_.Release(last);
    hopper::Settle(sums);
  }

  // Adds the products of the piece's panels, which come after its steps.
  __device__ __forceinline__ void MultiplyPanels(const TilePiece& piece, float (&sums)[kTiles][4]) {
    constexpr int kAtOnce = Products::kPanelsOfStage;
    for (int step = piece.begin; step < piece.end; ++step) {
      for (int rest = panels_.NumPanels(step); rest > 0; rest -= kAtOnce) {
        ring_.WaitForStage(position_);
        panels_.MultiplyInStage(sums, min(rest, kAtOnce), ring_.Stage(position_));
        ring_.Release(position_);
        position_.Advance(p_.num_stages);
      }
    }
    hopper::Settle(sums);
  }

  __device__ __forceinline__ void Finish(const TileSchedule& schedule, const TilePiece& piece,
                                         PieceSum (&sums)[kTiles][4]) {
    partial_.Announce();
    if (p_.num_splits == 2) {
      FinishSplit<2>(piece, sums);
    } else if (p_.num_splits == 4) {
      FinishSplit<4>(piece, sums);
    } else if (schedule.IsWhole(piece)) {
      Write(piece, 0, sums);
    } else {
      partial_.Leave(sums, piece);
    }
  }

  // This block's share of the tiles that it has pieces of.
  __device__ __forceinline__ void JoinAll() {
    TileSchedule schedule = ring_.schedule();
    TilePiece piece;
    while (schedule.NextShared(piece)) {
      if (!schedule.IsWhole(piece)) Join(schedule.FirstBlock(piece.tile), schedule.LastBlock(piece.tile), piece);
    }
  }

  __device__ __forceinline__ void Join(int first_block, int last_block, const TilePiece& piece) {
    constexpr int kRows = kXRows < 256 ? 16 : 32;  // of a part
    TileOutput<PieceSum, kRows, kBuffers> output = Output<kRows>(piece);
    partial_.ForShare(piece.tile, first_block, last_block, kXRows / kRows, [&](int part) {
      PieceSum sums[kRows / 8][4] = {};
      partial_.template Add<kXRows>(sums, first_block, last_block, part * kRows);
      output.Write(FirstRow(piece) + part * kRows, sums);
    });
  }

  // Each block of the cluster adds what all have of its share of the rows of x, and writes that.
  template <int kSplits>
  __device__ __forceinline__ void FinishSplit(const TilePiece& piece, const PieceSum (&sums)[kTiles][4]) {
    if constexpr (CanSplit<Products>(kSplits)) {
      constexpr int kShare = kTiles / kSplits;
      PieceSum share[kShare][4] = {};
      Exchange<kSplits>(sums, share);
      Write(piece, ring_.Rank() * kShare * 8, share);
    }
  }

  // Adds to `share` what all blocks of the cluster have of it in their sums. These meet where the rings were.
  template <int kSplits>
  __device__ __forceinline__ void Exchange(const PieceSum (&sums)[kTiles][4], PieceSum (&share)[kTiles / kSplits][4]) {
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
        const PieceSum(&quad)[4] = sums[to * kShare + j];
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
        share[j][0] += SumOf<PieceSum>(__float_as_uint(quad.x));
        share[j][1] += SumOf<PieceSum>(__float_as_uint(quad.y));
        share[j][2] += SumOf<PieceSum>(__float_as_uint(quad.z));
        share[j][3] += SumOf<PieceSum>(__float_as_uint(quad.w));
      }
    }
  }

  __device__ __forceinline__ int FirstRow(const TilePiece& piece) const { return piece.x_tile * kXRows; }

  // Adds sums * scales of x's rows from first_row on, in units of kUnit as products of outliers are.
  __device__ __forceinline__ void AddScaled(int first_row, const Sum (&sums)[kTiles][4], float (&to)[kTiles][4]) const {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const float2 row_scales = RowScalesOf(p_.row_scales, first_row, j);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float row_scale = e % 2 == 0 ? row_scales.x : row_scales.y;
        to[j][e] += static_cast<float>(sums[j][e]) * (row_scale * kUnit);
      }
    }
  }

  template <int kRows>
  __device__ __forceinline__ TileOutput<PieceSum, kRows, kBuffers> Output(const TilePiece& piece) const {
    return {p_, kUnit, Products::kHasOutliers ? nullptr : p_.row_scales, piece.weight_tile, consumer_, buffers_};
  }

  // Rows of the piece's tile from `row` on.
  template <int kSize>
  __device__ __forceinline__ void Write(const TilePiece& piece, int row, const PieceSum (&sums)[kSize][4]) {
    Output<kSize * 8>(piece).Write(FirstRow(piece) + row, sums);
  }

  const TileParameters& p_;
  TileRing<Products>& ring_;
  PanelConsumer<Products> panels_;
  const int consumer_;
  uint8_t* const buffers_;
  TileSums partial_;
  RingPosition position_;
};

}  // namespace heddle::cuda
