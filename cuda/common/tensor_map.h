// Descriptions of tensors for the tensor memory accelerator.
#pragma once

#include <cuda.h>

#include <array>
#include <cstdint>

#include "heddle_cuda.h"

namespace heddle::cuda {

// A tensor, innermost dimension first and contiguous, read in boxes of box[0] by box[1] ... elements that are laid out
// in shared memory row by row; rows of 128 or 64 bytes are swizzled, over 8 or 4 rows. Base and strides are multiples
// of 16 bytes. What belongs to dimensions beyond the rank is ignored.
struct TensorMapShape {
  const void* base;
  HeddleCudaDType dtype;
  int rank;  // 2 to 4
  std::array<uint64_t, 4> size;
  std::array<uint64_t, 3> stride_bytes;  // from the second dimension on
  std::array<uint32_t, 4> box;

  bool operator==(const TensorMapShape&) const = default;
};

// Makes it, or finds it among those that this thread made: a model's layers ask for the same few in every step.
CUtensorMap TensorMapOf(const TensorMapShape& shape);

}  // namespace heddle::cuda
