// Rows of x in shared memory as they are, once for all warps of a block: whole or, where they are too long for that, a
// slab of some rounds at a time in two buffers.
#pragma once

#include "common/rounding.h"
#include "common/shared_memory.cuh"
#include "gemm/gemv_arguments.h"
#include "gemm/gemv_sums.cuh"

namespace heddle::cuda {

// The slab of x that the block multiplies by, and the one after it on its way. All threads of the block call the same
// functions.
//
// kXChunkBytes: of a row, what belongs to a chunk of weights. kPaddingBytes lie between rows beyond whole rounds, so
// that what a warp reads of eight rows at a time lies in different banks.
template <int kXChunkBytes, int kPaddingBytes>
class XSlabs {
  static constexpr int kXRoundBytes = kGemvWarps * kXChunkBytes;

 public:
  // What a warp adds up for an output.
  using Sum = float;
  static constexpr bool kInSlabs = true;

  // What a warp's chunk is multiplied by.
  struct Chunk : SharedX {
    __device__ __forceinline__ void Next() { address += kXRoundBytes; }
  };

  // Cuts k into slabs that fit in `max_bytes`. False where x is to stay whole and does not fit.
  static bool Divide(int max_bytes, bool whole, GemvArguments& arguments) {
    // Of one slab where there are several.
    const int max_rounds = (max_bytes / (whole ? 1 : 2) / arguments.num_rows - kPaddingBytes) / kXRoundBytes;
    if (max_rounds < 1) return false;
    const int64_t fewest_slabs = CeilDiv(arguments.num_rounds, max_rounds);
    if (whole && fewest_slabs > 1) return false;
    arguments.slab_rounds = static_cast<int>(CeilDiv(arguments.num_rounds, fewest_slabs));
    arguments.num_slabs = static_cast<int>(CeilDiv(arguments.num_rounds, arguments.slab_rounds));
    arguments.x_shared_pitch = arguments.slab_rounds * kXRoundBytes + kPaddingBytes;
    return true;
  }

  static int SharedBytes(const GemvArguments& arguments) {
    return (arguments.num_slabs > 1 ? 2 : 1) * arguments.num_rows * arguments.x_shared_pitch;
  }

  __device__ __forceinline__ XSlabs(const GemvArguments& arguments, unsigned char* memory)
      : arguments_(arguments), memory_(SharedAddress(memory)) {}

  // Rounds of slab `slab`: [Begin(slab), Begin(slab + 1)).
  __device__ __forceinline__ int Begin(int slab) const {
    return min(slab * arguments_.slab_rounds, arguments_.num_rounds);
  }

  // Makes slab 0 current. The calling thread has no copies in an open group.
  __device__ __forceinline__ void LoadFirst() {
    if (arguments_.x_row_bytes % 16 == 0) {
      LoadUnits();
    } else {
      // Rows that end within 16 bytes are rare, and may wait for the rings: copies arrive in order.
      Copy(0, buffer_);
      CommitCopies();
      WaitForCopies<0>();
    }
    __syncthreads();
  }

  // Brings slab `slab` on its way to the other buffer. Its copies belong to the calling thread's next group.
  __device__ __forceinline__ void Start(int slab) { Copy(slab, buffer_ ^ 1); }

  // Makes the slab that was started last current. kCopyGroups is that of the calling warp's ring, `stages` the number
  // of stages it popped since then.
  template <int kCopyGroups>
  __device__ __forceinline__ void Turn(int stages) {
    if constexpr (kCopyGroups == 0) {
      CommitCopies();
      WaitForCopies<0>();
    } else if (stages >= kCopyGroups) {
      WaitForCopies<kCopyGroups - 1>();
    } else {
      WaitForCopies<0>();
    }
    __syncthreads();
    buffer_ ^= 1;
  }

  // Of the warp's first chunk in the current slab.
  __device__ __forceinline__ Chunk First() const {
    const uint32_t address = Place(buffer_, 0, 0) + threadIdx.x / 32 * kXChunkBytes;
    return {{address, arguments_.x_shared_pitch, arguments_.num_rows}};
  }

  __device__ __forceinline__ float ValueOf(float sum, int) const { return sum; }

 private:
  static constexpr int kUnitsPerRound = kXRoundBytes / 16;

  // Slab 0 of rows of whole units, by ordinary loads, as these need not wait for the rings: as many at a time as a
  // thread has, since each time costs the latency of L2 and there is nothing else to do meanwhile. Instructions, too,
  // come from memory the first time: what is few has little code.
  __device__ __forceinline__ void LoadUnits() {
    const int total = arguments_.num_rows * Begin(1) * kUnitsPerRound;
    if (total <= kGemvThreads) {
      LoadUnits<1>();
    } else if (total <= 2 * kGemvThreads) {
      LoadUnits<2>();
    } else if (total <= 4 * kGemvThreads) {
      LoadUnits<4>();
    } else {
      LoadUnits<8>();
    }
  }

  template <int kAtOnce>
  __device__ __forceinline__ void LoadUnits() {
    const int units = Begin(1) * kUnitsPerRound;
    const int row_units = arguments_.x_row_bytes / 16;
    int row = 0;
    int unit = threadIdx.x;
    const auto settle = [&] {
      while (unit >= units && row < arguments_.num_rows) {
        unit -= units;
        ++row;
      }
    };
    settle();
#pragma unroll 1
    while (row < arguments_.num_rows) {
      uint4 loaded[kAtOnce];
      uint32_t to[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        loaded[i] = {};
        to[i] = row < arguments_.num_rows ? Place(buffer_, row, unit) : 0;
        // Past L1, which may hold what kernels before wrote over.
        if (to[i] != 0 && unit < row_units) loaded[i] = __ldcg(reinterpret_cast<const uint4*>(Source(row, unit)));
        unit += kGemvThreads;
        settle();
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (to[i] != 0) StoreShared(to[i], loaded[i]);
      }
    }
  }

  __device__ __forceinline__ void Copy(int slab, int buffer) const {
    const int begin = Begin(slab) * kUnitsPerRound;
    const int units = Begin(slab + 1) * kUnitsPerRound - begin;
    int unit = threadIdx.x;
#pragma unroll 1
    for (int row = 0; row < arguments_.num_rows; unit -= units, ++row) {
#pragma unroll 1
      for (; unit < units; unit += kGemvThreads) {
        const int num_bytes = min(max(arguments_.x_row_bytes - (begin + unit) * 16, 0), 16);
        CopyAsync(Place(buffer, row, unit), num_bytes > 0 ? Source(row, begin + unit) : arguments_.x, num_bytes);
      }
    }
  }

  __device__ __forceinline__ const unsigned char* Source(int row, int unit) const {
    return arguments_.x + row * arguments_.x_pitch + unit * 16;
  }
  __device__ __forceinline__ uint32_t Place(int buffer, int row, int unit) const {
    return memory_ + (buffer * arguments_.num_rows + row) * arguments_.x_shared_pitch + unit * 16;
  }

  const GemvArguments& arguments_;
  const uint32_t memory_;
  int buffer_ = 0;
};

}  // namespace heddle::cuda
