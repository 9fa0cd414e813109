// What ops ask of the matrices they are given, and parts of those.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/error.h"

namespace heddle::cuda {

constexpr int64_t SizeOf(HeddleCudaDType dtype) {
  if (dtype == kHeddleCudaInt8) return 1;
  return dtype == kHeddleCudaFloat32 ? 4 : 2;
}

inline bool IsAligned(const void* memory) { return reinterpret_cast<uintptr_t>(memory) % 16 == 0; }

// Whether every row begins on 16 bytes, as vector accesses need.
inline bool HasAlignedRows(const HeddleCudaMatrix& matrix) {
  return IsAligned(matrix.data) && (matrix.num_rows <= 1 || matrix.stride * SizeOf(matrix.dtype) % 16 == 0);
}

// Fails unless `matrix` is one: sizes that are not negative, rows that do not overlap, memory. `name` is that of op and
// argument.
inline void CheckSizes(const HeddleCudaMatrix& matrix, const std::string& name) {
  const auto require = [&](bool condition, const char* what) {
    if (!condition) Fail(kHeddleCudaInvalid, name + " " + what);
  };
  require(matrix.num_rows >= 0 && matrix.size >= 0, "has a negative size");
  require(matrix.num_rows <= 1 || matrix.stride >= matrix.size, "has rows that overlap");
  require(matrix.data != nullptr || matrix.num_rows == 0 || matrix.size == 0, "is null");
}

// CheckSizes, and a dtype of floats.
inline void CheckMatrix(const HeddleCudaMatrix& matrix, const std::string& name) {
  const HeddleCudaDType dtype = matrix.dtype;
  if (dtype != kHeddleCudaFloat32 && dtype != kHeddleCudaFloat16 && dtype != kHeddleCudaBFloat16) {
    Fail(kHeddleCudaInvalid, name + " has a dtype that is none");
  }
  CheckSizes(matrix, name);
}

inline bool IsEmpty(const HeddleCudaMatrix& matrix) { return matrix.num_rows == 0 || matrix.size == 0; }

inline HeddleCudaMatrix RowsOf(const HeddleCudaMatrix& matrix, int64_t first, int64_t count) {
  HeddleCudaMatrix rows = matrix;
  rows.data = static_cast<unsigned char*>(matrix.data) + first * matrix.stride * SizeOf(matrix.dtype);
  rows.num_rows = count;
  return rows;
}

}  // namespace heddle::cuda
