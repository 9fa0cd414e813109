// Tensors: a non-owning view with a shape, and an owner of the memory behind one.
//
// Memory is row-major and contiguous; a view may step over longer rows (stride of the first dimension), as a slice of
// a fused buffer does. Not thread-safe: a tensor belongs to one rank, whose threads share it by the ops' own rules.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "base/dtype.h"
#include "base/error.h"
#include "device/buffer.h"

namespace heddle {

// At most four dimensions; unused ones are 1 and not counted in rank.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[static_cast<size_t>(i)]; }
  int64_t NumElements() const;
  bool operator==(const Shape& other) const = default;
  std::string ToString() const;  // "[3, 64]"

 private:
  int rank_ = 0;
  std::array<int64_t, 4> dims_{1, 1, 1, 1};
};

// Does not own; the owner outlives every view of it. Copying a view copies no data.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  Shape shape;
  int64_t row_stride = 0;  // elements between neighbours in dimension 0; the rest is contiguous

  TensorView() = default;
  // A contiguous view.
  TensorView(void* memory, DType element_type, const Shape& dims);
  TensorView(void* memory, DType element_type, const Shape& dims, int64_t stride);

  int64_t dim(int i) const { return shape[i]; }
  bool IsContiguous() const;

  // REQUIRES: T matches dtype (float, uint16_t for both 16-bit floats, int8_t, int32_t, int64_t).
  template <typename T>
  T* Data() const {
    HEDDLE_CHECK(sizeof(T) == DTypeSize(dtype), std::string("view is ") + DTypeName(dtype));
    return static_cast<T*>(data);
  }
  template <typename T>
  T* Row(int64_t i) const {
    return Data<T>() + i * row_stride;
  }

  // Rows [begin, end) of dimension 0.
  TensorView Rows(int64_t begin, int64_t end) const;
  // Columns [begin, end) of a rank-2 view; keeps the row stride.
  TensorView Columns(int64_t begin, int64_t end) const;
  // Same memory, other shape. REQUIRES: contiguous, same number of elements.
  TensorView Reshaped(const Shape& new_shape) const;
};

// Owns what its view points to, together with its copies.
class Tensor {
 public:
  Tensor() = default;
  // Zeroed memory, 64-byte aligned: a block of host memory of its own, or what the allocator gives.
  Tensor(DType dtype, const Shape& shape);
  Tensor(DType dtype, const Shape& shape, Allocator& allocator);
  // `memory` of this dtype and shape, which nobody writes to.
  Tensor(DType dtype, const Shape& shape, std::shared_ptr<const void> memory);

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }  // NOLINT: a tensor is usable wherever a view is
  bool empty() const { return view_.data == nullptr; }

 private:
  Tensor(std::shared_ptr<void> memory, DType dtype, const Shape& shape);

  TensorView view_;
  std::shared_ptr<const void> owner_;
};

}  // namespace heddle
