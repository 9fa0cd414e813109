// What the host tells the kernel of gemv_kernel.cuh, and the units in which both count.
//
// A block works on tiles of weight rows, each of kGroups groups of 16: the height of one mma. Along k a row is cut into
// chunks of 128 bytes, one line of L2. A round is a chunk for each warp; chunk c of every row is warp c % 8's. The
// chunks of one group are a stage of a warp's ring (2 KiB). Rows of x lie in shared memory, whole or, where they are
// too long for that, a slab of some rounds at a time in two buffers.
#pragma once

#include <cstdint>

#include "heddle_cuda.h"

namespace heddle::cuda {

inline constexpr int kGemvWarps = 8;
inline constexpr int kGemvThreads = kGemvWarps * 32;
inline constexpr int kGroupRows = 16;
inline constexpr int kChunkBytes = 128;
inline constexpr int kStageBytes = kGroupRows * kChunkBytes;
inline constexpr int kRoundBytes = kGemvWarps * kChunkBytes;

// Between rows of x in shared memory, beyond whole rounds: the same 16 bytes of eight rows then lie in different banks.
inline constexpr int kXPaddingBytes = 16;

struct GemvArguments {
  const unsigned char* x = nullptr;
  const unsigned char* weight = nullptr;
  const float* bias = nullptr;  // may be null
  void* y = nullptr;
  int64_t x_pitch = 0;       // bytes
  int64_t weight_pitch = 0;  // bytes
  int64_t y_stride = 0;      // elements
  int num_rows = 0;          // of x and y
  int num_outputs = 0;       // elements of a row of y; a gated product has twice as many weight rows
  int row_bytes = 0;         // of x and weights
  bool float32_output = false;
  HeddleCudaActivation activation = kHeddleCudaSilu;

  int num_tiles = 0;
  int num_rounds = 0;      // over row_bytes
  int num_slabs = 1;       // slab s begins with round s * num_rounds / num_slabs
  int x_shared_pitch = 0;  // bytes between rows of x in shared memory
};

// Shared memory of a block: rings of the warps, then x, then each warp's sums of a tile.
constexpr int RingBytes(int stages) { return kGemvWarps * stages * kStageBytes; }
constexpr int XSharedBytes(const GemvArguments& arguments) {
  return (arguments.num_slabs > 1 ? 2 : 1) * arguments.num_rows * arguments.x_shared_pitch;
}
constexpr int PartialSumsBytes(const GemvArguments& arguments, int groups) {
  return kGemvWarps * arguments.num_rows * groups * kGroupRows * static_cast<int>(sizeof(float));
}

}  // namespace heddle::cuda
