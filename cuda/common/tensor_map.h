// Descriptions of tensors for the tensor memory accelerator.
#pragma once

#include <cuda.h>

#include <array>
#include <cstdint>

#include "heddle_cuda.h"

namespace heddle::cuda {

// A tensor of 16-bit floats, innermost dimension first and contiguous, read in boxes of 64 by box[1] by box[2] elements
// that are laid out in shared memory as rows of 128 bytes, swizzled over 8 rows. Base and strides are multiples of 16
// bytes.
struct TensorMapShape {
  const void* base;
  HeddleCudaDType dtype;
  int rank;  // 2 or 3; what belongs to a third dimension is ignored with 2
  std::array<uint64_t, 3> size;
  std::array<uint64_t, 2> stride_bytes;  // of the second and third dimension
  std::array<uint32_t, 3> box;

  bool operator==(const TensorMapShape&) const = default;
};

// Makes it, or finds it among those that this thread made: a model's layers ask for the same few in every step.
CUtensorMap TensorMapOf(const TensorMapShape& shape);

}  // namespace heddle::cuda
