// Rows of a stored tensor on their way into a packed matrix: read, and in the kind of elements that its format packs.
#pragma once

#include <string>
#include <vector>

#include "loader/weight_source.h"
#include "tensor/matrix_format.h"

namespace heddle {

struct MatrixRows {
  Tensor values;              // [rows, columns], int8 where the format is, else any float type
  std::vector<float> scales;  // of int8 values, one a row
};

// Rows [first, first + count) of `stored` [n, k]: rounded to int8 or widened where it is stored otherwise. Any thread.
// Fails as StoredTensor::Read does, and with kModelFormat naming `name` where a value that is to be rounded is not
// finite, or a matrix that is to be 2:4 sparse has three values other than zero in a group of four.
MatrixRows ReadMatrixRows(const std::string& name, const StoredTensor& stored, int64_t first, int64_t count,
                          const MatrixFormat& format);

}  // namespace heddle
