// Keys and values on their way to shared memory. Each warp brings its own chunks, so that none waits for another.
#pragma once

#include "attention/decode_chunk_int8.cuh"
#include "common/launch.h"

namespace heddle::cuda {

// Until the oldest of `num_stages` groups of copies has come.
__device__ __forceinline__ void WaitForOldest(int num_stages) {
  switch (num_stages) {
    case 1:
      return WaitForCopies<0>();
    case 2:
      return WaitForCopies<1>();
    case 3:
      return WaitForCopies<2>();
    case 4:
      return WaitForCopies<3>();
    case 5:
      return WaitForCopies<4>();
    case 6:
      return WaitForCopies<5>();
    case 7:
      return WaitForCopies<6>();
    default:
      return WaitForCopies<7>();
  }
}

// One warp's chunks of a stretch of the work line, one a unit, in order.
template <class Stage>
class ChunkPipeline {
 public:
  // `stages` is the address of the warp's own num_stages stages. Reads nothing that an op wrote.
  __device__ ChunkPipeline(const DecodeParameters& p, const WorkLine& line, int begin, int end, uint32_t stages)
      : p_(p), line_(line), begin_(begin), end_(end), next_(begin), stages_(stages), plan_(PlanFrom(begin)) {
    for (int i = 0; i < p.num_stages; ++i) PrefetchChunk(i);
  }

  // Requests the first chunks. The warp has waited for the kernel before.
  __device__ void Start() {
    for (int i = 0; i < p_.num_stages; ++i) Request();
  }

  // The stage of the next chunk, once that is there. Nothing is there of a chunk that is empty.
  __device__ uint32_t Wait() const {
    WaitForOldest(p_.num_stages);
    __syncwarp();
    return stages_ + stage_ * Stage::kBytes;
  }

  // Gives that stage back for a chunk to come.
  __device__ void Release() {
    __syncwarp();
    Request();
  }

 private:
  static constexpr int kLineBytes = 128;

  // What a lane knows about the copy of one chunk. The lanes look ahead 32 units together, so that the block table is
  // read well before its entries are needed.
  struct Plan {
    int chunk;  // in the cache, counted in chunks
    int begin;  // rows that are seen; none at all when end is 0
    int end;
  };

  // Lane l plans the chunk of unit `first` + l.
  __device__ Plan PlanFrom(int first) const {
    const int unit = first + static_cast<int>(threadIdx.x % 32);
    if (unit >= end_) return {0, 0, 0};
    const Piece piece = line_.PieceAt(unit, end_);
    const Context context(line_.Length(piece.seq), p_.attention.sliding_window);
    const Chunk chunk(context, piece.begin, threadIdx.x / 32);
    if (chunk.is_empty()) return {0, 0, 0};
    const AttentionParameters& a = p_.attention;
    const int block = a.block_table[piece.seq * a.block_table_stride + (chunk.position >> a.block_shift)];
    const int in_block = (chunk.position & ((1 << a.block_shift) - 1)) / kChunkTokens;
    const int kv_head = piece.tile / p_.tiles_per_kv_head;
    const int chunks_per_block = (1 << a.block_shift) / kChunkTokens;
    return {(block * a.num_kv_heads + kv_head) * chunks_per_block + in_block, chunk.begin, chunk.end};
  }

  // The chunk that lane `lane` has planned.
  __device__ void PrefetchChunk(int lane) const {
    const int chunk = __shfl_sync(0xffffffffu, plan_.chunk, lane);
    if (__shfl_sync(0xffffffffu, plan_.end, lane) == 0) return;
    for (int offset = static_cast<int>(threadIdx.x % 32) * kLineBytes; offset < Stage::kCachedBytes;
         offset += 32 * kLineBytes) {
      for (const void* from : {p_.attention.keys, p_.attention.values}) {
        PrefetchToL2(static_cast<const char*>(from) + int64_t{chunk} * Stage::kCachedBytes + offset);
      }
    }
  }

  // Starts the copies of one more chunk, into the stage of the oldest. One group, even of nothing.
  __device__ void Request() {
    const int lane = (next_ - begin_) % 32;
    if (lane == 0 && next_ != begin_) plan_ = next_plan_;
    if (lane == 16) next_plan_ = PlanFrom(next_ + 16);
    const int chunk = __shfl_sync(0xffffffffu, plan_.chunk, lane);
    const int row_begin = __shfl_sync(0xffffffffu, plan_.begin, lane);
    const int row_end = __shfl_sync(0xffffffffu, plan_.end, lane);
    if (row_end > 0) {
      const uint32_t stage = stages_ + stage_ * Stage::kBytes;
      const int64_t offset = int64_t{chunk} * Stage::kCachedBytes;
      Stage::Copy(stage, static_cast<const char*>(p_.attention.keys) + offset, row_begin, row_end);
      Stage::Copy(stage + Stage::kValuesOffset, static_cast<const char*>(p_.attention.values) + offset, row_begin,
                  row_end);
    }
    CommitCopies();
    ++next_;
    stage_ = stage_ + 1 == p_.num_stages ? 0 : stage_ + 1;
  }

  const DecodeParameters& p_;
  const WorkLine& line_;
  int begin_;
  int end_;
  int next_;  // unit to be requested
  uint32_t stages_;
  int stage_ = 0;  // of the oldest chunk
  Plan plan_;
  Plan next_plan_ = {0, 0, 0};
};

}  // namespace heddle::cuda
