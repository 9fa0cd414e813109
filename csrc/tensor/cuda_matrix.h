// A tensor as the CUDA library takes it.
#pragma once

#include <string>

#include "device/cuda_library.h"
#include "tensor/tensor.h"

namespace heddle {

// REQUIRES: a float dtype or int8.
inline HeddleCudaDType CudaDTypeOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return kHeddleCudaFloat32;
    case DType::kFloat16:
      return kHeddleCudaFloat16;
    case DType::kBFloat16:
      return kHeddleCudaBFloat16;
    case DType::kInt8:
      return kHeddleCudaInt8;
    default:
      throw Error(ErrorCode::kInternal, std::string("the CUDA library was given ") + DTypeName(dtype));
  }
}

// Does not own; dimensions after the first are one row. REQUIRES: the view lies in the memory of a GPU.
inline HeddleCudaMatrix CudaMatrixOf(const TensorView& view) {
  return {.data = view.data,
          .dtype = CudaDTypeOf(view.dtype),
          .num_rows = view.dim(0),
          .size = view.dim(1) * view.dim(2) * view.dim(3),
          .stride = view.row_stride};
}

}  // namespace heddle
