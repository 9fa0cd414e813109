// How the blocks of a decode launch divide the work among themselves, by lengths that only the device knows.
//
// The context of a sequence is cut into units of kUnitTokens tokens, of which each warp of a block takes kChunkTokens.
// All units lie on one line: by sequence, then head tile, then position. Each block gets a stretch of that line,
// equally long to one unit, whatever the sequences' lengths. What a stretch has of one segment, the units of a sequence
// and head tile, is a piece. A head tile is up to `heads_per_tile` query heads of one KV head.
#pragma once

#include <cstdint>

#include "attention/common.cuh"
#include "common/rounding.h"

namespace heddle::cuda {

inline constexpr int kDecodeWarps = 4;
inline constexpr int kDecodeThreads = 32 * kDecodeWarps;
inline constexpr int kChunkTokens = 16;  // what one tensor product takes; a block of the cache holds whole chunks
inline constexpr int kUnitTokens = kDecodeWarps * kChunkTokens;
inline constexpr int kMaxStages = 8;

struct DecodeParameters {
  AttentionParameters attention;
  int32_t heads_per_tile;
  int32_t tiles_per_kv_head;
  int32_t min_units_per_block;
  int32_t num_stages;  // chunks that a warp has on their way or at hand, up to kMaxStages
  HeddleCudaDType dtype;
  uint32_t* counters;  // zero; one a block
  float* partials;     // [blocks][kPartialsPerBlock][PartialFloats]
};

// How many blocks units are divided among, if there are as many: no more than have min_units_per_block each on average,
// but one for each segment.
__host__ __device__ constexpr int64_t BlocksFor(int64_t num_units, int64_t num_segments, int min_units_per_block) {
  const int64_t blocks = CeilDiv(num_units, min_units_per_block);
  if (blocks >= num_segments) return blocks;
  return num_units < num_segments ? num_units : num_segments;
}

// A block has at most two pieces that are not whole: what its stretch begins with and what it ends with.
inline constexpr int kPartialsPerBlock = 2;

// Of one partial result: values of each head, then maximum and sum of each; in whole vectors.
constexpr int PartialFloats(int heads_per_tile, int head_dim) { return (heads_per_tile * (head_dim + 2) + 3) / 4 * 4; }

// The keys that a sequence's only token sees are [key_begin, length); chunks are counted from `first`.
struct Context {
  __host__ __device__ Context(int length, int sliding_window)
      : length(length),
        key_begin(KeyBegin(length - 1, sliding_window)),
        first(key_begin / kChunkTokens * kChunkTokens) {}

  __host__ __device__ int num_units() const {
    return length > 0 ? (length - first + kUnitTokens - 1) / kUnitTokens : 0;
  }

  int length;
  int key_begin;
  int first;
};

// Chunk `warp` of a unit: the tokens [position + begin, position + end) of it are seen.
struct Chunk {
  __device__ Chunk(const Context& context, int unit, int warp)
      : position(context.first + unit * kUnitTokens + warp * kChunkTokens),
        begin(max(0, context.key_begin - position)),
        end(min(kChunkTokens, context.length - position)) {}

  __device__ bool is_empty() const { return end <= 0; }

  int position;
  int begin;
  int end;
};

struct Piece {
  int seq;
  int tile;   // of all of the sequence's
  int begin;  // units of the segment
  int end;
  int first_unit;  // the segment's, on the line
  int num_units;   // of the segment

  __device__ bool is_whole() const { return begin == 0 && end == num_units; }
};

// The query heads of a tile.
struct HeadTile {
  __device__ HeadTile(const DecodeParameters& p, int tile)
      : kv_head(tile / p.tiles_per_kv_head),
        first_head(kv_head * p.attention.group_size + tile % p.tiles_per_kv_head * p.heads_per_tile),
        num_heads(min(p.heads_per_tile, (kv_head + 1) * p.attention.group_size - first_head)) {}

  int kv_head;
  int first_head;
  int num_heads;
};

// The line, and which block has what of it. All members but the arrays are the same in every block.
class WorkLine {
 public:
  static constexpr int kMaxSequences = 1024;

  // Shared memory for it.
  static constexpr int SharedInts(int num_seqs) { return 2 * num_seqs + 1 + kDecodeWarps; }

  // Called by all threads of the block; ends with a barrier.
  __device__ WorkLine(const DecodeParameters& p, int* shared)
      : units_before_(shared),
        lengths_(shared + p.attention.num_seqs + 1),
        num_seqs_(p.attention.num_seqs),
        tiles_(p.attention.num_kv_heads * p.tiles_per_kv_head) {
    Scan(p, shared, shared + 2 * num_seqs_ + 1);
    num_units_ = units_before_[num_seqs_] * tiles_;
    const auto wanted = static_cast<int>(BlocksFor(num_units_, int64_t{num_seqs_} * tiles_, p.min_units_per_block));
    num_blocks_ = min(static_cast<int>(gridDim.x), wanted);
    if (num_blocks_ == 0) return;
    quotient_ = num_units_ / num_blocks_;
    remainder_ = num_units_ % num_blocks_;
  }

  // The stretch of a block is [Begin(block), Begin(block + 1)); blocks from num_blocks() on have none.
  __device__ int Begin(int block) const { return block * quotient_ + min(block, remainder_); }
  __device__ int num_blocks() const { return num_blocks_; }
  __device__ int BlockOf(int unit) const {
    const int in_longer_stretches = remainder_ * (quotient_ + 1);
    if (unit < in_longer_stretches) return unit / (quotient_ + 1);
    return remainder_ + (unit - in_longer_stretches) / quotient_;
  }

  // The piece that begins with `unit`, of a stretch that ends before `stretch_end`.
  __device__ Piece PieceAt(int unit, int stretch_end) const {
    Piece piece;
    piece.seq = SequenceOf(unit);
    piece.num_units = UnitsOf(piece.seq);
    const int sequence_begin = units_before_[piece.seq] * tiles_;
    piece.tile = (unit - sequence_begin) / piece.num_units;
    piece.first_unit = sequence_begin + piece.tile * piece.num_units;
    piece.begin = unit - piece.first_unit;
    piece.end = min(piece.num_units, stretch_end - piece.first_unit);
    return piece;
  }

  // The next one of the same stretch, which has one.
  __device__ Piece PieceAfter(Piece piece, int stretch_end) const {
    piece.first_unit += piece.num_units;
    piece.begin = 0;
    if (++piece.tile == tiles_) {
      piece.tile = 0;
      do {
        piece.num_units = UnitsOf(++piece.seq);
      } while (piece.num_units == 0);
    }
    piece.end = min(piece.num_units, stretch_end - piece.first_unit);
    return piece;
  }

  __device__ int Length(int seq) const { return lengths_[seq]; }

 private:
  // Of one head tile.
  __device__ int UnitsOf(int seq) const { return units_before_[seq + 1] - units_before_[seq]; }

  __device__ int SequenceOf(int unit) const {
    int low = 0;
    int high = num_seqs_ - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (units_before_[middle] * tiles_ <= unit) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low;
  }

  // Each thread adds up neighbouring sequences, then the threads' sums are added up.
  __device__ void Scan(const DecodeParameters& p, int* shared, int* warp_sums) {
    const int thread = threadIdx.x;
    const int per_thread = (num_seqs_ + kDecodeThreads - 1) / kDecodeThreads;
    const int begin = min(num_seqs_, thread * per_thread);
    const int end = min(num_seqs_, begin + per_thread);
    int* lengths = shared + num_seqs_ + 1;
    int sum = 0;
    for (int seq = begin; seq < end; ++seq) {
      lengths[seq] = p.attention.seq_lens[seq];
      sum += Context(lengths[seq], p.attention.sliding_window).num_units();
    }
    int inclusive = sum;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const int lower = __shfl_up_sync(0xffffffffu, inclusive, offset);
      if (thread % 32 >= offset) inclusive += lower;
    }
    if (thread % 32 == 31) warp_sums[thread / 32] = inclusive;
    __syncthreads();
    int before = inclusive - sum;
    for (int warp = 0; warp < thread / 32; ++warp) before += warp_sums[warp];
    for (int seq = begin; seq < end; ++seq) {
      shared[seq] = before;
      before += Context(lengths[seq], p.attention.sliding_window).num_units();
    }
    if (thread == kDecodeThreads - 1) shared[num_seqs_] = before;
    __syncthreads();
  }

  const int* units_before_;  // [num_seqs + 1]: of one head tile, in the sequences before
  const int* lengths_;       // [num_seqs]
  int num_seqs_;
  int tiles_;  // of a sequence
  int num_units_;
  int num_blocks_;
  int quotient_ = 0;
  int remainder_ = 0;
};

}  // namespace heddle::cuda
