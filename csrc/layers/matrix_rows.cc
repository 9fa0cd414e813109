#include "layers/matrix_rows.h"

#include "tensor/quantize_row.h"

namespace heddle {
namespace {

[[noreturn]] void Throw(const std::string& name, int64_t row, const std::string& reason) {
  throw Error(ErrorCode::kModelFormat, "tensor \"" + name + "\", row " + std::to_string(row) + ": " + reason);
}

MatrixRows Quantize(const std::string& name, const Tensor& rows, int64_t first) {
  const int64_t count = rows.view().dim(0);
  const int64_t columns = rows.view().dim(1);
  MatrixRows result{Tensor(DType::kInt8, {count, columns}), std::vector<float>(static_cast<size_t>(count))};
  std::vector<float> wide(static_cast<size_t>(columns));
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t k = 0; k < columns; ++k) {
      wide[static_cast<size_t>(k)] = LoadFloat(rows.view().dtype, rows.view().data, r * columns + k);
    }
    float& scale = result.scales[static_cast<size_t>(r)];
    if (!AllFinite(wide)) Throw(name, first + r, "a value that is not a finite number cannot become int8");
    scale = QuantizeRow(wide, DType::kFloat32, result.values.view().Row<int8_t>(r));
  }
  return result;
}

MatrixRows Widen(const Tensor& rows, const float* scales) {
  const int64_t columns = rows.view().dim(1);
  MatrixRows result{Tensor(DType::kFloat32, rows.view().shape), {}};
  for (int64_t r = 0; r < rows.view().dim(0); ++r) {
    const int8_t* elements = rows.view().Row<int8_t>(r);
    float* wide = result.values.view().Row<float>(r);
    for (int64_t k = 0; k < columns; ++k) wide[k] = static_cast<float>(elements[k]) * scales[r];
  }
  return result;
}

bool IsZero(const TensorView& rows, int64_t i) {
  return rows.dtype == DType::kInt8 ? rows.Data<int8_t>()[i] == 0 : LoadFloat(rows.dtype, rows.data, i) == 0;
}

void CheckSparse(const std::string& name, const TensorView& rows, int64_t first) {
  for (int64_t i = 0; i < rows.shape.NumElements(); i += kSparseGroup) {
    int values = 0;
    for (int64_t j = i; j < i + kSparseGroup; ++j) values += IsZero(rows, j) ? 0 : 1;
    if (values <= 2) continue;
    const int64_t column = i % rows.dim(1);
    Throw(name, first + i / rows.dim(1),
          "columns " + std::to_string(column) + " to " + std::to_string(column + kSparseGroup - 1) + " hold " +
              std::to_string(values) + " values other than zero, where 2:4 sparsity allows two");
  }
}

}  // namespace

MatrixRows ReadMatrixRows(const std::string& name, const StoredTensor& stored, int64_t first, int64_t count,
                          const MatrixFormat& format) {
  const bool stored_int8 = stored.dtype() == DType::kInt8;
  const bool int8 = format.dtype == DType::kInt8;
  MatrixRows rows{Tensor(stored.dtype(), {count, stored.shape()[1]}), {}};
  stored.Read(first, rows.values);
  if (stored_int8) {
    const float* scales = stored.row_scales().data() + first;
    if (int8) {
      rows.scales.assign(scales, scales + count);
    } else {
      rows = Widen(rows.values, scales);
    }
  } else if (int8) {
    rows = Quantize(name, rows.values, first);
  }
  if (format.sparse) CheckSparse(name, rows.values, first);
  return rows;
}

}  // namespace heddle
