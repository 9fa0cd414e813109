// How a prefill launch divides its work: into tiles of query rows of one KV head, found on the device, which alone
// knows how many tokens each sequence has.
//
// The query heads of a KV head are rows of one matrix: row r of a sequence is head r % group_size of the group at token
// r / group_size of the step. Their keys are the same, so that a short sequence fills a tile the better.
#pragma once

#include <cstdint>

#include "attention/common.cuh"

namespace heddle::cuda {

// Rows [first_row, end_row) of a sequence and KV head.
struct PrefillTile {
  int seq;
  int kv_head;
  int first_token;  // of the sequence, a row of q and out
  int context;      // the sequence's tokens before this step
  int first_row;
  int end_row;
  int key_begin;  // the keys that any of the rows sees
  int key_end;

  __host__ __device__ bool is_empty() const { return end_row <= first_row; }
};

// The most tiles a KV head can have, all sequences together.
inline int64_t MaxPrefillTiles(const HeddleCudaPagedAttention& op, int rows_per_tile) {
  const int64_t group_size = op.num_heads / op.cache.num_kv_heads;
  const auto tiles_of = [&](int64_t tokens) { return (tokens * group_size + rows_per_tile - 1) / rows_per_tile; };
  const int64_t by_tokens = op.q.num_rows * group_size / rows_per_tile + op.num_seqs;
  const int64_t by_sequences = op.num_seqs * tiles_of(op.max_query_len);
  return by_tokens < by_sequences ? by_tokens : by_sequences;
}

// The order of tiles: by sequence; in a sequence the last tokens first, because they take longest, and all heads of a
// tile together, or as many heads as have their keys and values stay in the L2 cache.
class PrefillTileFinder {
 public:
  __device__ PrefillTileFinder(const AttentionParameters& p, int rows_per_tile)
      : p_(p), rows_per_tile_(rows_per_tile) {}

  // Tile `index`, or an empty one past the last. Called by whole warps; `index` never decreases from call to call.
  __device__ PrefillTile Find(int index) {
    for (; first_seq_ < p_.num_seqs; first_seq_ += 32) {
      const int seq = first_seq_ + static_cast<int>(threadIdx.x % 32);
      const Sequence own = seq < p_.num_seqs ? Load(seq) : Sequence{};
      const int tiles = TilesOf(own) * p_.num_kv_heads;
      const int end = InclusiveSum(tiles);
      const unsigned beyond = __ballot_sync(kAllLanes, index < tiles_before_ + end);
      if (beyond != 0) {
        const int lane = __ffs(beyond) - 1;
        const Sequence found = {__shfl_sync(kAllLanes, own.first_token, lane),
                                __shfl_sync(kAllLanes, own.num_tokens, lane), __shfl_sync(kAllLanes, own.length, lane)};
        const int before = tiles_before_ + __shfl_sync(kAllLanes, end - tiles, lane);
        return Place(first_seq_ + lane, found, index - before);
      }
      tiles_before_ += __shfl_sync(kAllLanes, end, 31);
    }
    return {};
  }

 private:
  static constexpr unsigned kAllLanes = 0xffffffffu;
  // Of keys and values that tiles running at the same time read; half of an H100's cache, which holds some lines twice.
  static constexpr int kCachedMebibytes = 24;

  struct Sequence {
    int first_token = 0;
    int num_tokens = 0;  // of the step
    int length = 0;      // with the context
  };

  __device__ Sequence Load(int seq) const {
    const int begin = p_.query_start_loc[seq];
    const int num_tokens = p_.query_start_loc[seq + 1] - begin;
    const int length = p_.seq_lens[seq];
    return length < num_tokens ? Sequence{} : Sequence{begin, num_tokens, length};
  }

  __device__ int TilesOf(const Sequence& sequence) const {
    return (sequence.num_tokens * p_.group_size + rows_per_tile_ - 1) / rows_per_tile_;
  }

  __device__ static int InclusiveSum(int x) {
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const int lower = __shfl_up_sync(kAllLanes, x, offset);
      if (static_cast<int>(threadIdx.x % 32) >= offset) x += lower;
    }
    return x;
  }

  __device__ PrefillTile Place(int seq, const Sequence& sequence, int index) const {
    const int tiles = TilesOf(sequence);
    const int64_t bytes_per_token = int64_t{4} * p_.head_dim * p_.num_kv_heads;
    const int sections = 1 + static_cast<int>((sequence.length * bytes_per_token) >> 20) / kCachedMebibytes;
    const int heads_per_section = (p_.num_kv_heads + sections - 1) / sections;
    const int section = index / (tiles * heads_per_section);
    const int heads = min(heads_per_section, p_.num_kv_heads - section * heads_per_section);
    const int rest = index - section * tiles * heads_per_section;

    PrefillTile tile;
    tile.seq = seq;
    tile.kv_head = section * heads_per_section + rest % heads;
    tile.first_token = sequence.first_token;
    tile.context = sequence.length - sequence.num_tokens;
    tile.first_row = (tiles - 1 - rest / heads) * rows_per_tile_;
    tile.end_row = min(tile.first_row + rows_per_tile_, sequence.num_tokens * p_.group_size);
    tile.key_begin = KeyBegin(tile.context + tile.first_row / p_.group_size, p_.sliding_window);
    tile.key_end = tile.context + (tile.end_row - 1) / p_.group_size + 1;
    return tile;
  }

  const AttentionParameters& p_;
  int rows_per_tile_;
  int first_seq_ = 0;
  int tiles_before_ = 0;  // of the sequences before first_seq_
};

// The first element of a row's query, or of its output.
__device__ __forceinline__ int64_t RowOffset(const AttentionParameters& p, const PrefillTile& tile, int row,
                                             int64_t stride) {
  const int token = row / p.group_size;
  const int head = tile.kv_head * p.group_size + row - token * p.group_size;
  return (tile.first_token + token) * stride + static_cast<int64_t>(head) * p.head_dim;
}

}  // namespace heddle::cuda
