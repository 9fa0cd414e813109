// A consumer warpgroup of the Hopper prefill kernel. It issues the scores of the next keys together with the values of
// the present ones, and computes the softmax of those scores while the values are added up. The consumers take turns to
// issue, so that one's softmax runs under the others' products.
#pragma once

#include "attention/prefill_softmax.cuh"
#include "attention/prefill_wgmma_shared.cuh"
#include "common/wgmma.cuh"

namespace heddle::cuda {

template <typename T, class Shape>
class WgmmaConsumer {
  static constexpr int kColumns = Shape::kHeadDim < 128 ? Shape::kHeadDim : 128;  // of the output, in one product
  static constexpr int kParts = Shape::kHeadDim / kColumns;
  // With larger heads the products take so long that the softmax is hidden anyhow.
  static constexpr bool kTakesTurns = Shape::kHeadDim <= 128;

  using Scores = float[Shape::kKeys / 8][4];
  using Probabilities = uint32_t[Shape::kKeys / 16][4];
  using Out = float[kParts][kColumns / 8][4];

 public:
  __device__ WgmmaConsumer(const WgmmaParameters& p, WgmmaShared<Shape>& shared, int consumer)
      : p_(p.attention),
        shared_(shared),
        consumer_(consumer),
        q_(hopper::Describe(SharedAddress(shared.q) + consumer * 64 * 128)),
        keys_(hopper::Describe(SharedAddress(shared.keys))),
        values_(hopper::Describe(SharedAddress(shared.values), Shape::kKeyChunkBytes)) {}

  // By one warpgroup.
  __device__ void Run() {
    if (kTakesTurns && consumer_ == Shape::kConsumers - 1) hopper::ArriveNamed(kFirstTurn, kTurnThreads);
    while (true) {
      hopper::Wait(&shared_.q_barriers.full[q_ring_.stage], q_ring_.parity);
      const PrefillTile tile = shared_.tiles[q_ring_.stage];
      if (tile.is_empty()) return;
      num_blocks_ = (tile.key_end - 1) / Shape::kKeys - tile.key_begin / Shape::kKeys + 1;
      num_busy_ = (tile.end_row - tile.first_row + 63) / 64;
      if (consumer_ < num_busy_) {
        Compute(tile);
      } else {
        Skip();
      }
    }
  }

 private:
  // Hardware barriers: one by which each consumer gets its turn, one of each consumer's own.
  static constexpr int kFirstTurn = 1;
  static constexpr int kFirstOwn = kFirstTurn + Shape::kConsumers;
  static constexpr int kTurnThreads = 256;  // who waits and who was before

  // Which keys rows see.
  struct View {
    int begin[2], end[2];      // this lane's two rows
    int all_begin, all_end;    // the keys that all rows of the warpgroup see
    int tile_begin, tile_end;  // the keys that any row of the tile sees
  };

  __device__ View MakeView(const PrefillTile& tile) const {
    View view;
    const int first_row = tile.first_row + 64 * consumer_;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int position = tile.context + LaneRow(tile, i) / p_.group_size;
      view.begin[i] = KeyBegin(position, p_.sliding_window);
      view.end[i] = position + 1;
    }
    view.all_begin = KeyBegin(tile.context + (first_row + 63) / p_.group_size, p_.sliding_window);
    view.all_end = tile.context + first_row / p_.group_size + 1;
    view.tile_begin = tile.key_begin;
    view.tile_end = tile.key_end;
    return view;
  }

  // The row of the sequence that is row 0 or 1 of this lane's fragments.
  __device__ int LaneRow(const PrefillTile& tile, int row) const {
    return tile.first_row + 64 * consumer_ + static_cast<int>(threadIdx.x % 128 / 32) * 16 + 8 * row +
           static_cast<int>(threadIdx.x % 32 / 4);
  }

  __device__ __forceinline__ void Compute(const PrefillTile& tile) {
    const View view = MakeView(tile);
    const int first = tile.key_begin / Shape::kKeys;
    int block = (tile.key_end - 1) / Shape::kKeys;
    Out out = {};
    Probabilities probabilities;
    SoftmaxRows rows;
    {
      Scores scores;
      float rescale[2];
      hopper::Wait(&shared_.key_barriers.full[key_ring_.stage], key_ring_.parity);
      hopper::BeginProducts();
      MultiplyKeys(scores);
      hopper::CommitProducts();
      hopper::WaitForProducts<0>();
      hopper::Settle(scores);
      Release(shared_.key_barriers, key_ring_);
      Mask(scores, view, block);
      Exponentiate(scores, p_.score.factor, rows, rescale);
      PackFragment<T>(probabilities, scores);
    }
    for (--block; block >= first; --block) Step(view, block, out, probabilities, rows);
    Release(shared_.q_barriers, q_ring_);

    hopper::Wait(&shared_.value_barriers.full[value_ring_.stage], value_ring_.parity);
    ClearUnseenValues(view, first);
    hopper::BeginProducts();
    AddValues(out, probabilities);
    hopper::CommitProducts();
    hopper::WaitForProducts<0>();
    SettleOut(out);
    Release(shared_.value_barriers, value_ring_);
    Store(tile, out, rows);
  }

  // Scores and softmax of key block `block`, values of the one after it.
  __device__ __forceinline__ void Step(const View& view, int block, Out& out, Probabilities& probabilities,
                                       SoftmaxRows& rows) {
    Scores scores;
    float rescale[2];
    hopper::Wait(&shared_.key_barriers.full[key_ring_.stage], key_ring_.parity);
    hopper::Wait(&shared_.value_barriers.full[value_ring_.stage], value_ring_.parity);
    ClearUnseenValues(view, block + 1);
    const bool take_turns = kTakesTurns && num_busy_ > 1;
    if (take_turns) hopper::SyncNamed(kFirstTurn + consumer_, kTurnThreads);
    hopper::BeginProducts();
    MultiplyKeys(scores);
    hopper::CommitProducts();
    AddValues(out, probabilities);
    hopper::CommitProducts();
    if (take_turns) hopper::ArriveNamed(kFirstTurn + (consumer_ + 1 < num_busy_ ? consumer_ + 1 : 0), kTurnThreads);
    hopper::WaitForProducts<1>();
    hopper::Settle(scores);
    Release(shared_.key_barriers, key_ring_);
    Mask(scores, view, block);
    Exponentiate(scores, p_.score.factor, rows, rescale);
    // The assembler puts a wait ahead of arithmetic that does not depend on it, and then nothing runs under the
    // products; ahead of a store of what was computed it does not.
    *static_cast<volatile float*>(&shared_.computed_before_wait[threadIdx.x - 128 * Shape::kFirstConsumer]) =
        rows.sum[0] + rows.sum[1];
    hopper::WaitForProducts<0>();
    SettleOut(out);
    Release(shared_.value_barriers, value_ring_);
#pragma unroll
    for (int part = 0; part < kParts; ++part) Rescale(out[part], rescale);
    PackFragment<T>(probabilities, scores);
  }

  // None of the tile's rows is this consumer's: the buffers pass by.
  __device__ void Skip() {
    Release(shared_.q_barriers, q_ring_);
    for (int i = 0; i < num_blocks_; ++i) {
      hopper::Wait(&shared_.key_barriers.full[key_ring_.stage], key_ring_.parity);
      Release(shared_.key_barriers, key_ring_);
      hopper::Wait(&shared_.value_barriers.full[value_ring_.stage], value_ring_.parity);
      Release(shared_.value_barriers, value_ring_);
    }
  }

  // By every warp once it is done with the buffer.
  template <class Barriers, int kStages>
  __device__ __forceinline__ void Release(Barriers& barriers, StageRing<kStages>& ring) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) hopper::Arrive(&barriers.empty[ring.stage]);
    ring.Advance();
  }

  __device__ __forceinline__ void MultiplyKeys(Scores& scores) const {
    const uint64_t q = q_ + q_ring_.stage * (Shape::kQueryBytes >> 4);
    const uint64_t keys = keys_ + key_ring_.stage * (Shape::kKeyBytes >> 4);
    hopper::MultiplyTransposed<T, false>(scores, q, keys);
#pragma unroll
    for (int k = 1; k < Shape::kHeadDim / 16; ++k) {
      const int in_row = k % 4 * 32;
      hopper::MultiplyTransposed<T, true>(scores, q + ((k / 4 * Shape::kQueryChunkBytes + in_row) >> 4),
                                          keys + ((k / 4 * Shape::kKeyChunkBytes + in_row) >> 4));
    }
  }

  __device__ __forceinline__ void AddValues(Out& out, const Probabilities& probabilities) const {
    const uint64_t values = values_ + value_ring_.stage * (Shape::kKeyBytes >> 4);
#pragma unroll
    for (int k = 0; k < Shape::kKeys / 16; ++k) {
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        const int offset = part * kColumns / 64 * Shape::kKeyChunkBytes + k * 16 * 128;
        hopper::MultiplyAdd<T>(out[part], probabilities[k], values + (offset >> 4));
      }
    }
  }

  __device__ __forceinline__ static void SettleOut(Out& out) {
#pragma unroll
    for (int part = 0; part < kParts; ++part) hopper::Settle(out[part]);
  }

  __device__ __forceinline__ static void Mask(Scores& scores, const View& view, int block) {
    const int first_key = block * Shape::kKeys;
    if (first_key >= view.all_begin && first_key + Shape::kKeys <= view.all_end) return;
    cuda::Mask(scores, VisibleKeys{{view.begin[0] - first_key, view.begin[1] - first_key},
                                   {view.end[0] - first_key, view.end[1] - first_key}});
  }

  // Values that no row of the tile sees may be anything, NaN too, which a probability of zero would not undo.
  __device__ __forceinline__ void ClearUnseenValues(const View& view, int block) const {
    const int begin = view.tile_begin - block * Shape::kKeys;
    const int end = view.tile_end - block * Shape::kKeys;
    if (begin <= 0 && end >= Shape::kKeys) return;
    constexpr int kPacksPerRow = 8;
    uint4* values = reinterpret_cast<uint4*>(shared_.values[value_ring_.stage]);
#pragma unroll 1
    for (int i = threadIdx.x % 128; i < Shape::kChunks * Shape::kKeys * kPacksPerRow; i += 128) {
      const int row = i / kPacksPerRow % Shape::kKeys;
      if (row < begin || row >= end) values[i] = make_uint4(0, 0, 0, 0);
    }
    hopper::FenceAsyncProxy();
    hopper::SyncNamed(kFirstOwn + consumer_, 128);
  }

  __device__ __forceinline__ void Store(const PrefillTile& tile, const Out& out, const SoftmaxRows& rows) const {
    T* first = RowOut(tile, 0);
    T* second = RowOut(tile, 1);
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const int column = part * kColumns;
      StoreNormalized<T, 0>(first == nullptr ? first : first + column, out[part], rows);
      StoreNormalized<T, 1>(second == nullptr ? second : second + column, out[part], rows);
    }
  }

  __device__ T* RowOut(const PrefillTile& tile, int row) const {
    const int index = LaneRow(tile, row);
    return index < tile.end_row ? static_cast<T*>(p_.out) + RowOffset(p_, tile, index, p_.out_stride) : nullptr;
  }

  const AttentionParameters& p_;
  WgmmaShared<Shape>& shared_;
  const int consumer_;
  const uint64_t q_;
  const uint64_t keys_;
  const uint64_t values_;
  int num_blocks_ = 0;  // of keys, in the tile
  int num_busy_ = 0;    // consumers that have rows of the tile
  StageRing<Shape::kQueryStages> q_ring_;
  StageRing<Shape::kKeyStages> key_ring_;
  StageRing<Shape::kKeyStages> value_ring_;
};

}  // namespace heddle::cuda
