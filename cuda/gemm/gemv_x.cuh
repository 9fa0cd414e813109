// Rows of x in shared memory, once for all warps of a block.
#pragma once

#include <type_traits>

#include "gemm/gemv_arguments.h"
#include "gemm/shared_memory.cuh"

namespace heddle::cuda {

// 16 bytes past L1, which may hold what kernels before wrote over; those from `num_bytes` on are zero and not read.
// T's size divides num_bytes.
template <typename T>
__device__ __forceinline__ uint4 LoadUnit(const unsigned char* from, int num_bytes) {
  if (num_bytes >= 16) return __ldcg(reinterpret_cast<const uint4*>(from));
  using Bits = std::conditional_t<sizeof(T) == 2, uint16_t, uint32_t>;
  constexpr int kSize = 16 / sizeof(T);
  union {
    Bits elements[kSize];
    uint4 unit;
  };
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    const bool inside = i * static_cast<int>(sizeof(T)) < num_bytes;
    elements[i] = inside ? __ldcg(reinterpret_cast<const Bits*>(from) + i) : Bits{0};
  }
  return unit;
}

// The slab of x that the block multiplies by, and the one after it on its way. All threads of the block call the same
// functions.
template <typename T>
class XSlabs {
 public:
  __device__ __forceinline__ XSlabs(const GemvArguments& arguments, uint32_t memory)
      : arguments_(arguments), memory_(memory) {}

  // Rounds of slab `slab`: [Begin(slab), Begin(slab + 1)).
  __device__ __forceinline__ int Begin(int slab) const { return slab * arguments_.num_rounds / arguments_.num_slabs; }

  // Makes slab 0 current, by ordinary loads: asynchronous copies arrive in order, and would wait for the rings.
  __device__ __forceinline__ void LoadFirst() {
    constexpr int kAtOnce = 4;
    const int units = Begin(1) * kUnitsPerRound;
    const int total = arguments_.num_rows * units;
    for (int first = threadIdx.x; first < total; first += kAtOnce * kGemvThreads) {
      uint4 loaded[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int index = first + i * kGemvThreads;
        if (index < total) loaded[i] = LoadUnit<T>(Source(index / units, index % units), Bytes(index % units));
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int index = first + i * kGemvThreads;
        if (index < total) StoreShared(Place(0, index / units, index % units), loaded[i]);
      }
    }
    __syncthreads();
  }

  // Makes the slab that was on its way current. kStages is that of the caller's ring, `stages` the number of stages it
  // popped since then.
  template <int kStages>
  __device__ __forceinline__ void Turn(int stages) {
    if (stages >= kStages) {
      WaitForCopies<kStages - 1>();
    } else {
      WaitForCopies<0>();
    }
    __syncthreads();
    buffer_ ^= 1;
  }

  // Brings slab `slab` on its way to the other buffer. Its copies belong to the caller's next group.
  __device__ __forceinline__ void Start(int slab) {
    const int begin = Begin(slab) * kUnitsPerRound;
    const int units = Begin(slab + 1) * kUnitsPerRound - begin;
    const int total = arguments_.num_rows * units;
    for (int index = threadIdx.x; index < total; index += kGemvThreads) {
      const int row = index / units;
      const int unit = index % units;
      const int num_bytes = min(max(Bytes(begin + unit), 0), 16);
      CopyAsync(Place(buffer_ ^ 1, row, unit),
                num_bytes > 0 ? Source(row, begin + unit) : arguments_.x, num_bytes);
    }
  }

  // The current slab.
  __device__ __forceinline__ uint32_t Address() const { return Place(buffer_, 0, 0); }

 private:
  static constexpr int kUnitsPerRound = kRoundBytes / 16;

  __device__ __forceinline__ const unsigned char* Source(int row, int unit) const {
    return arguments_.x + row * arguments_.x_pitch + unit * 16;
  }
  // What is left of a row from `unit` on; may be negative.
  __device__ __forceinline__ int Bytes(int unit) const { return arguments_.row_bytes - unit * 16; }
  __device__ __forceinline__ uint32_t Place(int buffer, int row, int unit) const {
    return memory_ + (buffer * arguments_.num_rows + row) * arguments_.x_shared_pitch + unit * 16;
  }

  const GemvArguments& arguments_;
  const uint32_t memory_;
  int buffer_ = 0;
};

}  // namespace heddle::cuda
