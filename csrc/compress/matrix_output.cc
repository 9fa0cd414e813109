#include "compress/matrix_output.h"

#include <array>
#include <cmath>

#include "base/error.h"
#include "base/quote.h"
#include "base/rounding.h"
#include "compress/rows.h"
#include "tensor/quantize_row.h"

namespace heddle {
namespace {

// Where the tensors of a matrix stand in its list; what a form lacks is left out, the values are always first.
constexpr size_t kValues = 0;
constexpr size_t kBitmask = 1;      // of sparse forms
constexpr size_t kSparseShape = 2;  // of sparse forms

}  // namespace

const char* SafetensorsName(DType dtype) {
  return dtype == DType::kBFloat16 ? "BF16" : dtype == DType::kFloat16 ? "F16" : "F32";
}

MatrixOutput::MatrixOutput(std::string prefix, MatrixForm form, int64_t rows, int64_t columns, DType dtype)
    : prefix_(std::move(prefix)), form_(form), rows_(rows), columns_(columns), dtype_(dtype) {}

std::vector<NewTensor> MatrixOutput::Tensors() const {
  const std::string type = IsInt8(form_) ? "I8" : SafetensorsName(dtype_);
  std::vector<NewTensor> tensors;
  if (form_ == MatrixForm::kPackedInt8) {
    tensors.push_back({prefix_ + ".weight_packed", "I32", {rows_, CeilDiv(columns_, 4)}});
    tensors.push_back({prefix_ + ".weight_shape", "I64", {2}});
  } else if (IsSparse(form_)) {
    tensors.push_back({prefix_ + ".compressed", type, {rows_, columns_ / 2}});
    tensors.push_back({prefix_ + ".bitmask", "U8", {rows_, MaskBytes(columns_)}});
    tensors.push_back({prefix_ + ".shape", "I64", {2, 1}});
  } else {
    tensors.push_back({prefix_ + ".weight", type, {rows_, columns_}});
  }
  if (IsInt8(form_)) tensors.push_back({prefix_ + ".weight_scale", SafetensorsName(dtype_), {rows_, 1}});
  return tensors;
}

void MatrixOutput::WriteShape(SafetensorsWriter& writer, size_t first) const {
  const std::array<int64_t, 2> shape = {rows_, columns_};
  if (form_ == MatrixForm::kPackedInt8) writer.Write(first + 1, 0, shape.data(), sizeof(shape));
  if (IsSparse(form_)) writer.Write(first + kSparseShape, 0, shape.data(), sizeof(shape));
}

void MatrixOutput::WriteRows(SafetensorsWriter& writer, size_t first, int64_t begin,
                             std::span<const float> values) const {
  const int64_t count = static_cast<int64_t>(values.size()) / columns_;
  const auto at = [&](size_t bytes) { return static_cast<uint64_t>(begin) * (bytes / static_cast<uint64_t>(count)); };
  std::vector<uint8_t> masks;
  if (IsSparse(form_)) {
    masks.resize(static_cast<size_t>(count * MaskBytes(columns_)));
    std::vector<float> magnitudes(static_cast<size_t>(columns_));
    for (int64_t row = 0; row < count; ++row) {
      for (int64_t i = 0; i < columns_; ++i) {
        magnitudes[static_cast<size_t>(i)] = std::abs(values[static_cast<size_t>(row * columns_ + i)]);
      }
      TwoOfFourMask(magnitudes, masks.data() + row * MaskBytes(columns_));
    }
    writer.Write(first + kBitmask, at(masks.size()), masks.data(), masks.size());
  }
  std::vector<char> scales;
  const std::vector<char> stored = Values(values, masks, scales);
  writer.Write(first + kValues, at(stored.size()), stored.data(), stored.size());
  if (!scales.empty()) writer.Write(first + Tensors().size() - 1, at(scales.size()), scales.data(), scales.size());
}

std::vector<char> MatrixOutput::Values(std::span<const float> values, const std::vector<uint8_t>& masks,
                                       std::vector<char>& scales) const {
  const int64_t count = static_cast<int64_t>(values.size()) / columns_;
  const bool is_int8 = IsInt8(form_);
  const size_t element = is_int8 ? 1 : DTypeSize(dtype_);
  const int64_t stored_columns = IsSparse(form_)                    ? columns_ / 2
                                 : form_ == MatrixForm::kPackedInt8 ? RoundUp(columns_, 4)
                                                                    : columns_;
  std::vector<char> stored(static_cast<size_t>(count * stored_columns) * element);
  std::vector<int8_t> integers(is_int8 ? static_cast<size_t>(columns_) : 0);
  if (is_int8) scales.resize(static_cast<size_t>(count) * DTypeSize(dtype_));
  for (int64_t row = 0; row < count; ++row) {
    const std::span<const float> source =
        values.subspan(static_cast<size_t>(row * columns_), static_cast<size_t>(columns_));
    if (is_int8) {
      if (!AllFinite(source)) {
        throw Error(ErrorCode::kModelFormat,
                    "tensor " + Quote(prefix_ + ".weight") + " cannot be quantised: it holds a NaN or an infinity");
      }
      StoreFloat(dtype_, scales.data(), row, QuantizeRow(source, dtype_, integers.data()));
    }
    int64_t to = row * stored_columns;
    for (int64_t i = 0; i < columns_; ++i) {
      if (!masks.empty() && !IsKept(masks.data() + row * MaskBytes(columns_), i)) continue;
      const auto column = static_cast<size_t>(i);
      if (!is_int8) {
        StoreFloat(dtype_, stored.data(), to++, source[column]);
      } else if (form_ == MatrixForm::kPackedInt8) {
        stored[static_cast<size_t>(to++)] = static_cast<char>(integers[column] + 128);
      } else {
        stored[static_cast<size_t>(to++)] = static_cast<char>(integers[column]);
      }
    }
  }
  return stored;
}

}  // namespace heddle
