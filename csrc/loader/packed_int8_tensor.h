// A matrix of int8 that compressed-tensors packed into int32.
#pragma once

#include <vector>

#include "loader/checkpoint_files.h"
#include "loader/weight_source.h"

namespace heddle {

class PackedInt8Tensor : public StoredTensor {
 public:
  // `located` is [rows, columns / 4, rounded up] I32: four elements + 128 in each, the first in the lowest byte.
  PackedInt8Tensor(const LocatedTensor& located, const Shape& shape, std::vector<float> scales)
      : StoredTensor(DType::kInt8, shape, std::move(scales)), located_(located) {}

  // Bytes of a stored row.
  static int64_t RowBytes(int64_t columns) { return (columns + 3) / 4 * 4; }

 private:
  void ReadElements(int64_t begin, int64_t count, void* destination) const override;

  LocatedTensor located_;
};

}  // namespace heddle
