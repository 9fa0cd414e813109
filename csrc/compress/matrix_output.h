// A matrix of the smaller checkpoint as compressed-tensors stores it, filled in by rows.
//
//   form          tensors of `<prefix>`
//   kDense        weight [rows, columns] of the matrix's dtype
//   kSparse       compressed [rows, columns / 2] of that dtype; bitmask [rows, columns / 8] U8; shape [2, 1] I64
//   kPackedInt8   weight_packed [rows, columns / 4] I32, bytes plus 128; weight_scale [rows, 1]; weight_shape [2] I64
//   kInt8         weight [rows, columns] I8; weight_scale [rows, 1]
//   kSparseInt8   compressed [rows, columns / 2] I8; bitmask; shape; weight_scale [rows, 1]
//
// Scales are of the matrix's dtype, as others write them. Numbers of columns are rounded up.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "compress/safetensors_writer.h"

namespace heddle {

enum class MatrixForm { kDense, kSparse, kPackedInt8, kInt8, kSparseInt8 };

constexpr bool IsSparse(MatrixForm form) { return form == MatrixForm::kSparse || form == MatrixForm::kSparseInt8; }
constexpr bool IsInt8(MatrixForm form) { return form != MatrixForm::kDense && form != MatrixForm::kSparse; }

// "F32", "BF16" or "F16".
const char* SafetensorsName(DType dtype);

class MatrixOutput {
 public:
  MatrixOutput(std::string prefix, MatrixForm form, int64_t rows, int64_t columns, DType dtype);

  std::vector<NewTensor> Tensors() const;

  // What does not depend on the weights. `first` is where Tensors() begin in the writer, here and below.
  void WriteShape(SafetensorsWriter& writer, size_t first) const;

  // Rows [begin, begin + values.size() / columns) from float32. Any thread, for disjoint rows. Fails with kModelFormat
  // naming the matrix when a value that becomes an integer is none.
  void WriteRows(SafetensorsWriter& writer, size_t first, int64_t begin, std::span<const float> values) const;

 private:
  std::vector<char> Values(std::span<const float> values, const std::vector<uint8_t>& masks,
                           std::vector<char>& scales) const;

  std::string prefix_;
  MatrixForm form_;
  int64_t rows_;
  int64_t columns_;
  DType dtype_;
};

}  // namespace heddle
