// How weights reach a warp: through a ring of its own in shared memory, filled by asynchronous copies. What is on its
// way needs no registers, so that the ring stays full across tiles, across reductions, and while the kernel waits for
// the one before it.
//
// From compute capability 9.0 on the tensor memory accelerator copies a stage, told by one lane, for most forms; else
// lanes copy 16 bytes at a time (cp.async). These cost most of the instructions beside the products themselves, and
// share the way to shared memory with what the products read.
//
// While it waits, other kernels work, on little data and one after another: what counts for them is latency. So a ring
// is first filled with no more on its way than keeps memory busy, or each of their reads would queue behind all of it.
// For the same reason weights are the first to leave L2: what those kernels read, their code too, stays for the next
// layer.
#pragma once

#include <algorithm>
#include <type_traits>

#include "common/barrier.cuh"
#include "common/hopper.cuh"
#include "common/shared_memory.cuh"
#include "gemm/gemv_arguments.h"
#include "gemm/gemv_sums.cuh"

namespace heddle::cuda {

inline constexpr int kRingAlignment = 1024;

// Of all rings on their way at first, but for whole stages: with so many bytes an H100 reads at 99 % of its speed.
inline constexpr int kBytesAtFirst = 48 * 1024;

// Shared memory of a block's rings: of all warps' stages the values, as UnitOffset places them, then the metadata, then
// what TensorRing waits for. For that `memory` begins on kRingAlignment bytes, otherwise on 128.
//
// kMetadataUnits: for a row's values of a stage, so many 16 bytes, 0 to 2.
template <int kMetadataUnits, int kStages>
struct RingMemory {
  static constexpr int kValueBytes = kGroupBytes;  // of a stage
  static constexpr int kMetadataBytes = kMetadataUnits * kGroupRows * 16;
  static constexpr int kStageBytes = kValueBytes + kMetadataBytes;
  static constexpr int kStagesAtFirst = std::min(kStages, (kBytesAtFirst / kGemvWarps + kStageBytes / 2) / kStageBytes);

  // With barriers, or without.
  static constexpr int Bytes(bool tensor) {
    return kGemvWarps * kStages * (kStageBytes + (tensor ? static_cast<int>(sizeof(Barrier)) : 0));
  }

  // Of the calling warp's first stage.
  static __device__ __forceinline__ unsigned char* Values(unsigned char* memory) {
    return memory + static_cast<int>(threadIdx.x) / 32 * kStages * kValueBytes;
  }
  static __device__ __forceinline__ unsigned char* Metadata(unsigned char* memory) {
    return memory + kGemvWarps * kStages * kValueBytes + static_cast<int>(threadIdx.x) / 32 * kStages * kMetadataBytes;
  }
  static __device__ __forceinline__ Barrier* Barriers(unsigned char* memory) {
    return reinterpret_cast<Barrier*>(memory + kGemvWarps * kStages * kStageBytes) +
           static_cast<int>(threadIdx.x) / 32 * kStages;
  }
};

// A ring of kStages stages of a warp, whose functions all of its lanes call:
//   Ring(arguments, memory)  starts the first stages; returns when few are still on their way; reads weights only
//   Front()                  the oldest stage, once it is there
//   Pop()                    gives it back and starts another in its place; ends the thread's open group of copies
//                            where kCopyGroups > 0, whether there is another or not: X may have put copies in it
//   kCopyGroups              how many groups of the thread's own copies (cp.async) its stages are
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
// By the tensor memory accelerator.
template <int kMetadataUnits, int kGroups, int kStages, bool kGated>
class TensorRing {
  using Memory = RingMemory<kMetadataUnits, kStages>;

 public:
  static constexpr int kCopyGroups = 0;

  __device__ __forceinline__ TensorRing(const GemvArguments& arguments, unsigned char* memory)
      : arguments_(arguments),
        values_(Memory::Values(memory)),
        metadata_(Memory::Metadata(memory)),
        full_(InRegister(Memory::Barriers(memory))),
        policy_(ReadOncePolicy()),
        tile_(blockIdx.x) {
    if (IsFirstLane()) {
      hopper::PrefetchMap(arguments.weight_map);
      if constexpr (kMetadataUnits > 0) hopper::PrefetchMap(arguments.metadata_map);
    }
    // Copies begin before all barriers are there: making one takes some 40 cycles.
    InitBarriers(0, Memory::kStagesAtFirst);
#pragma unroll 1
    for (int i = 0; i < Memory::kStagesAtFirst; ++i) Start(i);
    InitBarriers(Memory::kStagesAtFirst, kStages);
#pragma unroll 1
    for (int i = Memory::kStagesAtFirst; i < kStages && tile_ < arguments_.num_tiles; ++i) {
      Wait(&full_[i - Memory::kStagesAtFirst], 0);
      Start(i);
    }
  }

  __device__ __forceinline__ WeightStage Front() const {
    Wait(&full_[front_], parity_);
    return {SharedAddress(values_) + front_ * Memory::kValueBytes,
            SharedAddress(metadata_) + front_ * Memory::kMetadataBytes};
  }

  __device__ __forceinline__ void Pop() {
    // Loads by lanes come before this, which orders them before the copy.
    __syncwarp();
    Start(front_);
    if (++front_ == kStages) {
      front_ = 0;
      parity_ ^= 1;
    }
  }

 private:
  // The compiler would find out at each stage anew where shared memory lies.
  static __device__ __forceinline__ Barrier* InRegister(Barrier* barriers) {
    asm volatile("" : "+l"(barriers));
    return barriers;
  }

  // Those of stages `begin` to `end`.
  __device__ __forceinline__ void InitBarriers(int begin, int end) const {
    if (IsFirstLane()) {
      for (int i = begin; i < end; ++i) InitBarrier(&full_[i], 1);
      hopper::FenceBarrierInit();
      hopper::FenceAsyncProxy();
    }
    __syncwarp();
  }

  static __device__ __forceinline__ bool IsFirstLane() { return threadIdx.x % 32 == 0; }

  __device__ __forceinline__ void Start(int stage) {
    if (tile_ >= arguments_.num_tiles) return;
    if (IsFirstLane()) {
      Barrier* const full = &full_[stage];
      const int chunk = round_ * kGemvWarps + static_cast<int>(threadIdx.x) / 32;
      const int row =
          kGated ? tile_ * kGroupRows + group_ * arguments_.num_outputs : (tile_ * kGroups + group_) * kGroupRows;
      hopper::ArriveAndExpect(full, Memory::kValueBytes + Memory::kMetadataBytes);
      hopper::CopyBoxWith(policy_, values_ + stage * Memory::kValueBytes, arguments_.weight_map, full,
                          chunk * kChunkBytes, row);
      if constexpr (kMetadataUnits > 0) {
        hopper::CopyBoxWith(policy_, metadata_ + stage * Memory::kMetadataBytes, arguments_.metadata_map, full,
                            chunk * kMetadataUnits * 16, row);
      }
    }
    if (++group_ < kGroups) return;
    group_ = 0;
    if (++round_ < arguments_.num_rounds) return;
    round_ = 0;
    tile_ += gridDim.x;
  }

  const GemvArguments& arguments_;
  unsigned char* const values_;
  unsigned char* const metadata_;
  Barrier* const full_;
  const uint64_t policy_;
  int front_ = 0;
  uint32_t parity_ = 0;
  // The next stage to start.
  int tile_;
  int round_ = 0;
  int group_ = 0;
};

#endif

// By copies of 16 bytes a lane.
template <int kMetadataUnits, int kGroups, int kStages, bool kGated>
class CopyRing {
  static_assert(kGroups == 1 || kGroups == 2);
  using Memory = RingMemory<kMetadataUnits, kStages>;

 public:
  static constexpr int kCopyGroups = kStages;

  __device__ __forceinline__ CopyRing(const GemvArguments& arguments, unsigned char* memory)
      : arguments_(arguments),
        values_memory_(SharedAddress(Memory::Values(memory))),
        metadata_memory_(SharedAddress(Memory::Metadata(memory))),
        policy_(ReadOncePolicy()),
        group_step_(kGated ? arguments.num_outputs : kGroupRows),
        tile_(blockIdx.x) {
    EnterTile();
#pragma unroll 1
    for (int i = 0; i < kStages; ++i) {
      if (i >= Memory::kStagesAtFirst) WaitForCopies<Memory::kStagesAtFirst - 1>();
      Start(i);
    }
  }

  __device__ __forceinline__ WeightStage Front() const {
    WaitForCopies<kStages - 1>();
    __syncwarp();
    return {values_memory_ + front_ * Memory::kValueBytes, metadata_memory_ + front_ * Memory::kMetadataBytes};
  }

  __device__ __forceinline__ void Pop() {
    __syncwarp();
    Start(front_);
    front_ = front_ + 1 == kStages ? 0 : front_ + 1;
  }

 private:
  static constexpr int kRowsAtOnce = 32 / kChunkUnits;

  __device__ __forceinline__ void Start(int stage) {
    if (tile_ < arguments_.num_tiles) {
      CopyValues(values_memory_ + stage * Memory::kValueBytes);
      if constexpr (kMetadataUnits > 0) CopyMetadata(metadata_memory_ + stage * Memory::kMetadataBytes);
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
    const int unit = lane % kGroupRows * kMetadataUnits + lane / kGroupRows;
    CopyAsyncWith(policy_, to + unit * 16, inside ? metadata_ : arguments_.metadata, inside ? 16 : 0);
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
  const uint32_t values_memory_;  // of the warp's first stage
  const uint32_t metadata_memory_;
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

// The ring of a form's kernel: see kTensorRing in gemv_kernel.cuh.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
template <typename Form, int kGroups, int kStages, bool kGated>
using WeightRing = std::conditional_t<Form::kTensorRing, TensorRing<Form::kMetadataUnits, kGroups, kStages, kGated>,
                                      CopyRing<Form::kMetadataUnits, kGroups, kStages, kGated>>;
#else
template <typename Form, int kGroups, int kStages, bool kGated>
using WeightRing = CopyRing<Form::kMetadataUnits, kGroups, kStages, kGated>;
#endif

}  // namespace heddle::cuda
