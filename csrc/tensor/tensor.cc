#include "tensor/tensor.h"

namespace heddle {

Shape::Shape(std::initializer_list<int64_t> dims) : rank_(static_cast<int>(dims.size())) {
  HEDDLE_CHECK(dims.size() <= dims_.size(), std::to_string(dims.size()) + " dimensions");
  size_t i = 0;
  for (int64_t dim : dims) dims_[i++] = dim;
}

int64_t Shape::NumElements() const { return dims_[0] * dims_[1] * dims_[2] * dims_[3]; }

std::string Shape::ToString() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) text += (i ? ", " : "") + std::to_string((*this)[i]);
  return text + "]";
}

TensorView::TensorView(void* memory, DType element_type, const Shape& dims)
    : TensorView(memory, element_type, dims, dims[1] * dims[2] * dims[3]) {}

TensorView::TensorView(void* memory, DType element_type, const Shape& dims, int64_t stride)
    : data(memory), dtype(element_type), shape(dims), row_stride(stride) {}

bool TensorView::IsContiguous() const { return dim(0) <= 1 || row_stride == dim(1) * dim(2) * dim(3); }

TensorView TensorView::Rows(int64_t begin, int64_t end) const {
  HEDDLE_CHECK(0 <= begin && begin <= end && end <= dim(0), shape.ToString());
  TensorView rows = *this;
  rows.data = static_cast<char*>(data) + begin * row_stride * static_cast<int64_t>(DTypeSize(dtype));
  switch (shape.rank()) {
    case 1:
      rows.shape = {end - begin};
      break;
    case 2:
      rows.shape = {end - begin, dim(1)};
      break;
    case 3:
      rows.shape = {end - begin, dim(1), dim(2)};
      break;
    default:
      rows.shape = {end - begin, dim(1), dim(2), dim(3)};
  }
  return rows;
}

TensorView TensorView::Columns(int64_t begin, int64_t end) const {
  HEDDLE_CHECK(shape.rank() == 2 && 0 <= begin && begin <= end && end <= dim(1), shape.ToString());
  void* first = static_cast<char*>(data) + begin * static_cast<int64_t>(DTypeSize(dtype));
  return {first, dtype, {dim(0), end - begin}, row_stride};
}

TensorView TensorView::Reshaped(const Shape& new_shape) const {
  HEDDLE_CHECK(IsContiguous() && new_shape.NumElements() == shape.NumElements(),
               shape.ToString() + " to " + new_shape.ToString());
  return {data, dtype, new_shape};
}

Tensor::Tensor(std::shared_ptr<void> memory, DType dtype, const Shape& shape)
    : view_(memory.get(), dtype, shape), owner_(std::move(memory)) {}

Tensor::Tensor(DType dtype, const Shape& shape)
    : Tensor(AllocateHost(static_cast<size_t>(shape.NumElements()) * DTypeSize(dtype)), dtype, shape) {}

Tensor::Tensor(DType dtype, const Shape& shape, Allocator& allocator)
    : Tensor(allocator.Allocate(static_cast<size_t>(shape.NumElements()) * DTypeSize(dtype)), dtype, shape) {}

Tensor::Tensor(DType dtype, const Shape& shape, std::shared_ptr<const void> memory)
    : view_(const_cast<void*>(memory.get()), dtype, shape), owner_(std::move(memory)) {}

}  // namespace heddle
