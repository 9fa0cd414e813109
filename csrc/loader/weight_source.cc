#include "loader/weight_source.h"

namespace heddle {

void StoredTensor::Read(int64_t row, const TensorView& rows) const {
  const int64_t columns = shape_[1] * shape_[2] * shape_[3];
  const int64_t count = rows.shape.NumElements();
  HEDDLE_CHECK(rows.dtype == dtype_ && rows.IsContiguous() && count == rows.dim(0) * columns && row >= 0 &&
                   rows.dim(0) <= shape_[0] - row,
               rows.shape.ToString() + " from row " + std::to_string(row) + " of " + shape_.ToString());
  ReadElements(row * columns, count, rows.data);
}

}  // namespace heddle
