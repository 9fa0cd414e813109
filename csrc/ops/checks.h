// What ops share on entry: checks of shapes and dtypes, and the storage code of a dtype. A mismatch is a bug of ours.
#pragma once

#include <string>

#include "base/error.h"
#include "ops/cpu/kernels.h"
#include "tensor/tensor.h"

namespace heddle::ops {

// `view` has this dtype and shape, and its rows do not overlap. `what` names op and argument: "RmsNorm: weight".
inline void CheckView(const char* what, const TensorView& view, DType dtype, const Shape& shape) {
  HEDDLE_CHECK(view.dtype == dtype && view.shape == shape, std::string(what) + " is " + DTypeName(view.dtype) +
                                                               view.shape.ToString() + ", expected " +
                                                               DTypeName(dtype) + shape.ToString());
  HEDDLE_CHECK(view.dim(0) <= 1 || view.row_stride >= view.dim(1) * view.dim(2) * view.dim(3),
               std::string(what) + " has rows of " + shape.ToString() + " only " + std::to_string(view.row_stride) +
                   " elements apart");
}

inline void CheckContiguous(const char* what, const TensorView& view, DType dtype, const Shape& shape) {
  CheckView(what, view, dtype, shape);
  HEDDLE_CHECK(view.IsContiguous(), std::string(what) + " has rows " + std::to_string(view.row_stride) + " apart");
}

inline void CheckRank(const char* what, const TensorView& view, int rank) {
  HEDDLE_CHECK(view.shape.rank() == rank,
               std::string(what) + " has shape " + view.shape.ToString() + ", expected rank " + std::to_string(rank));
}

// How kernels call the dtype.
inline cpu::Storage StorageOf(const char* what, DType dtype) {
  HEDDLE_CHECK(dtype == DType::kFloat32 || dtype == DType::kBFloat16 || dtype == DType::kFloat16,
               std::string(what) + " is " + DTypeName(dtype));
  if (dtype == DType::kFloat32) return cpu::Storage::kFloat32;
  return dtype == DType::kBFloat16 ? cpu::Storage::kBFloat16 : cpu::Storage::kFloat16;
}

}  // namespace heddle::ops
