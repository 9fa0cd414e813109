// How weights reach a warp: through a ring of its own in shared memory, filled by asynchronous copies.
//
// Copies of 16 bytes a lane (cp.async) rather than bulk copies: a stage is 16 pieces of 128 bytes, a whole line each,
// of which one instruction of a warp moves four and a bulk copy one; a k that is no multiple of anything costs a byte
// count; and sm_80 has them. What is on its way needs no registers, so that the ring stays full across tiles, across
// reductions, and while the kernel waits for the one before it.
//
// While it waits, other kernels work, on little data and one after another: what counts for them is latency. So a ring
// is first filled with no more on its way than keeps memory busy, or each of their reads would queue behind all of it.
// For the same reason weights are the first to leave L2: what those kernels read, their code too, stays for the next
// layer.
#pragma once

#include "common/shared_memory.cuh"
#include "gemm/gemv_arguments.h"
#include "gemm/gemv_sums.cuh"

namespace heddle::cuda {

// A stage is 16 rows of values, as UnitOffset places them, and then, of 2:4, their metadata: for each 16 bytes of a
// row's part those of all 16 rows.
//
// kMetadataUnits: how many 16 bytes that part is, 0 to 2.
template <int kMetadataUnits, int kGroups, int kStages, bool kGated>
class WeightRing {
  static_assert(kGroups == 1 || kGroups == 2);

 public:
  static constexpr int kStageBytes = kGroupBytes + kMetadataUnits * kGroupRows * 16;
  static constexpr int kBytes = kStages * kStageBytes;

  // `memory`: kBytes of the warp's own. Starts the first kStages stages, and returns when few of them
  // are still on their way; reads weights and nothing else.
  __device__ __forceinline__ WeightRing(const GemvArguments& arguments, uint32_t memory)
      : arguments_(arguments),
        memory_(memory),
        policy_(ReadOncePolicy()),
        group_step_(kGated ? arguments.num_outputs : kGroupRows),
        tile_(blockIdx.x) {
    EnterTile();
#pragma unroll 1
    for (int i = 0; i < kStages; ++i) {
      if (i >= kStagesAtFirst) WaitForCopies<kStagesAtFirst - 1>();
      Start(i * kStageBytes);
    }
  }

  // The oldest stage, once it is there.
  __device__ __forceinline__ uint32_t Front() const {
    WaitForCopies<kStages - 1>();
    __syncwarp();
    return memory_ + front_;
  }

  // Gives the oldest stage back and starts another in its place.
  __device__ __forceinline__ void Pop() {
    __syncwarp();
    Start(front_);
    front_ = front_ + kStageBytes == kBytes ? 0 : front_ + kStageBytes;
  }

 private:
  static constexpr int kRowsAtOnce = 32 / kChunkUnits;
  static constexpr int kStagesAtFirst = 3;  // 48 KiB of a block: with them an H100 reads at 99 % of its speed

  __device__ __forceinline__ void Start(int slot) {
    if (tile_ < arguments_.num_tiles) {
      CopyValues(memory_ + slot);
      if constexpr (kMetadataUnits > 0) CopyMetadata(memory_ + slot + kGroupBytes);
      Advance();
    }
    CommitCopies();
  }

  __device__ __forceinline__ void CopyValues(uint32_t stage) const {
    const int64_t step = kRowsAtOnce * arguments_.weight_pitch;
    const int num_bytes =
        arguments_.row_bytes - round_ * kRoundBytes - static_cast<int>(threadIdx.x) / 32 * kChunkBytes;
    if (rows_left_ >= kGroupRows && num_bytes >= kChunkBytes) {
#pragma unroll
      for (int i = 0; i < kGroupRows / kRowsAtOnce; ++i) CopyAsyncWith(policy_, Place(stage, i), values_ + i * step);
      return;
    }
    const int row = threadIdx.x % 32 / kChunkUnits;
    const int unit_bytes = min(max(num_bytes - static_cast<int>(threadIdx.x) % kChunkUnits * 16, 0), 16);
#pragma unroll 1
    for (int i = 0; i < kGroupRows / kRowsAtOnce; ++i) {
      const bool inside = row + i * kRowsAtOnce < rows_left_ && unit_bytes > 0;
      CopyAsyncWith(policy_, Place(stage, i), inside ? values_ + i * step : arguments_.weight, inside ? unit_bytes : 0);
    }
  }

  // Where the lane's unit of its i-th row goes.
  static __device__ __forceinline__ uint32_t Place(uint32_t stage, int i) {
    return stage + UnitOffset(threadIdx.x % 32 / kChunkUnits + i * kRowsAtOnce, threadIdx.x % kChunkUnits);
  }

  __device__ __forceinline__ void CopyMetadata(uint32_t to) const {
    const int lane = threadIdx.x % 32;
    if (lane >= kMetadataUnits * kGroupRows) return;
    const bool inside = lane % kGroupRows < rows_left_ && MetadataColumn() < arguments_.metadata_pitch;
    CopyAsyncWith(policy_, to + lane * 16, inside ? metadata_ : arguments_.metadata, inside ? 16 : 0);
  }

  // The first byte of the lane's metadata in its row.
  __device__ __forceinline__ int MetadataColumn() const {
    const int chunk = round_ * kGemvWarps + static_cast<int>(threadIdx.x) / 32;
    return (chunk * kMetadataUnits + static_cast<int>(threadIdx.x) % 32 / kGroupRows) * 16;
  }

  // Sets what is to be read to the tile's first group and round.
  __device__ __forceinline__ void EnterTile() {
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    const int first = tile_ * (kGated ? 1 : kGroups) * kGroupRows;
    rows_left_ = arguments_.num_outputs - first;
    values_ = arguments_.weight + (first + lane / kChunkUnits) * arguments_.weight_pitch + warp * kChunkBytes +
              lane % kChunkUnits * 16;
    if constexpr (kMetadataUnits > 0) {
      metadata_ = arguments_.metadata + (first + lane % kGroupRows) * arguments_.metadata_pitch + MetadataColumn();
    }
  }

  // Groups 0 and 1 of a gated tile are 16 rows of gate and the same of up.
  __device__ __forceinline__ void Advance() {
    if constexpr (kGroups == 2) {
      group_ ^= 1;
      const int rows = group_ == 1 ? group_step_ : -group_step_;
      values_ += rows * arguments_.weight_pitch;
      if constexpr (kMetadataUnits > 0) metadata_ += rows * arguments_.metadata_pitch;
      if constexpr (!kGated) rows_left_ -= rows;
      if (group_ == 1) return;
    }
    if (++round_ == arguments_.num_rounds) {
      round_ = 0;
      tile_ += gridDim.x;
      EnterTile();
    } else {
      values_ += kRoundBytes;
      if constexpr (kMetadataUnits > 0) metadata_ += kGemvWarps * kMetadataUnits * 16;
    }
  }

  const GemvArguments& arguments_;
  const uint32_t memory_;
  const uint64_t policy_;
  const int group_step_;  // rows of the weight from a tile's first group to its second
  int front_ = 0;
  // The next stage to start.
  int tile_;
  int round_ = 0;
  int group_ = 0;
  int rows_left_;                            // of the weight, or of gate or up, from its group on; may be none or less
  const unsigned char* values_;              // the lane's first unit
  const unsigned char* metadata_ = nullptr;  // the lane's
};

}  // namespace heddle::cuda
