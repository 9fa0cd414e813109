// What the host tells the kernel of gemv_kernel.cuh, and the units in which both count.
//
// A block works on tiles of weight rows, each of kGroups groups of 16: the height of one mma. Along k a row of stored
// values is cut into chunks of 128 bytes, one line of L2. A round is a chunk for each warp; chunk c of every row is
// warp c % 8's. The chunks of one group, with the metadata of as many values, are a stage of a warp's ring.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "heddle_cuda.h"

namespace heddle::cuda {

inline constexpr int kGemvWarps = 8;
inline constexpr int kGemvThreads = kGemvWarps * 32;
inline constexpr int kGroupRows = 16;
inline constexpr int kChunkBytes = 128;
inline constexpr int kChunkUnits = kChunkBytes / 16;
inline constexpr int kGroupBytes = kGroupRows * kChunkBytes;
inline constexpr int kRoundBytes = kGemvWarps * kChunkBytes;

struct GemvArguments {
  // From compute capability 9.0 on: boxes of a stage, in bytes.
  CUtensorMap weight_map{};
  CUtensorMap metadata_map{};
  const unsigned char* x = nullptr;
  const unsigned char* weight = nullptr;    // its values
  const unsigned char* metadata = nullptr;  // of 2:4
  const float* scales = nullptr;            // of int8
  const float* bias = nullptr;              // may be null
  void* y = nullptr;
  int64_t x_pitch = 0;         // bytes
  int64_t weight_pitch = 0;    // bytes
  int64_t metadata_pitch = 0;  // bytes
  int64_t y_stride = 0;        // elements
  int num_rows = 0;            // of x and y
  int num_outputs = 0;         // elements of a row of y; a gated product has twice as many weight rows
  int row_bytes = 0;           // of the weight's values
  int x_row_bytes = 0;
  bool float32_output = false;
  HeddleCudaActivation activation = kHeddleCudaSilu;
  // Of x as int8.
  uint32_t outlier_bits = 0;              // without its sign, an element of x is an outlier from here on
  const unsigned char* marked = nullptr;  // by MarkRows; null: the kernel quantises x itself
  const float* marked_scales = nullptr;
  int64_t marked_pitch = 0;  // bytes

  int num_tiles = 0;
  int num_rounds = 0;          // over row_bytes
  int num_slabs = 1;           // of x
  int slab_rounds = 0;         // of each slab but the last, which may have fewer
  int x_shared_pitch = 0;      // bytes between rows of x in shared memory
  int num_outlier_slots = -1;  // negative: there are no outliers
};

}  // namespace heddle::cuda
