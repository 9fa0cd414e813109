// A 2:4 sparse matrix that compressed-tensors stored as a bitmask and the elements that are not zero.
#pragma once

#include <vector>

#include "loader/checkpoint_files.h"
#include "loader/weight_source.h"

namespace heddle {

class Sparse24Tensor : public StoredTensor {
 public:
  // `compressed` is [rows, columns / 2] of a float dtype or I8. `bitmask` is [rows, columns / 8, rounded up] U8: a set
  // bit for each column that has an element, the first in the lowest bit. `scales` are the row_scales() of int8.
  // Read gives zeros for the others; it fails with kModelFormat where a group of four columns has not exactly two
  // elements, or bits stand beyond the columns. REQUIRES: a multiple of four columns.
  Sparse24Tensor(const LocatedTensor& compressed, const LocatedTensor& bitmask, const Shape& shape,
                 std::vector<float> scales);

 private:
  void ReadElements(int64_t begin, int64_t count, void* destination) const override;
  void CheckBits(int64_t row, const uint8_t* bits) const;

  LocatedTensor compressed_;
  LocatedTensor bitmask_;
};

}  // namespace heddle
