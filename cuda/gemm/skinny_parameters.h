// What the host tells the kernel of skinny_kernel.cuh, and the units in which both count.
//
// A tile is some rows of the weight, all of k, for all rows of x. Along k it is cut into steps of two boxes, each of
// 128 bytes of a row: a swizzled row of shared memory. A stage of the block's ring holds a step of x, then of the
// weight.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "heddle_cuda.h"

namespace heddle::cuda {

inline constexpr int kSkinnyBoxRowBytes = 128;
inline constexpr int kStepBoxes = 2;
inline constexpr int kStepRowBytes = kStepBoxes * kSkinnyBoxRowBytes;
inline constexpr int kMaxSkinnyStages = 24;

struct SkinnyParameters {
  CUtensorMap x;            // boxes of box_rows rows
  CUtensorMap weight;       // boxes of a tile's rows, of a gated one half of them
  const float* row_scales;  // of x, where it and the weight are int8
  const float* scales;      // of the weight's rows, likewise
  const float* bias;        // may be null
  void* y;
  int64_t y_stride;         // elements
  int num_rows;             // of x and y
  int box_rows;             // num_rows, rounded up to whole groups of 8, over which shared memory is swizzled
  int num_outputs;          // elements of a row of y; a gated product has twice as many weight rows
  int num_tiles;            // block b has b, b + gridDim.x, ...
  int num_steps;            // of a tile
  int num_stages;           // of the ring
  HeddleCudaDType y_dtype;  // T or float32
  HeddleCudaActivation activation;
};

}  // namespace heddle::cuda
