// A weight matrix in the layout its kernels stream: packed once at load, read-only afterwards.
//
// On CPU panels of 16 outputs; within a panel K runs upwards:
//   float32, float16   [ceil(n / 16)][k_padded][16]
//   bfloat16           [ceil(n / 16)][k_padded / 2][16][2]
// Outputs beyond n and K beyond the slice are zero. K is cut into reduction slices (see kNumReductionSlices); each
// slice starts at an even packed position, so that k_padded >= k.
//
// On a GPU rows, [n][k_padded], each beginning on 16 bytes; slices mean nothing there.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/rounding.h"
#include "device/buffer.h"
#include "tensor/sharding.h"
#include "tensor/tensor.h"

namespace heddle {

inline constexpr int kPanelWidth = 16;

// Packed matrices are kept in files (loader/weight_cache.h): another layout is another number, and so is another order
// of the parts of a fused matrix or another way to cut shards.
inline constexpr int kPackedLayoutVersion = 1;

enum class MatrixLayout { kPanels, kRows };

class PackedMatrix {
 public:
  PackedMatrix() = default;

  // Reserves zeroed memory for [n, k] of `dtype`, from the allocator or in host memory. `slice_bounds` are ascending
  // columns 0 .. k, one more than there are slices (a power of two, at most kNumReductionSlices): {0, k} for a product
  // that is summed in one go.
  PackedMatrix(DType dtype, int64_t n, int64_t k, std::vector<int64_t> slice_bounds,
               MatrixLayout layout = MatrixLayout::kPanels, Allocator* allocator = nullptr);

  // The matrix itself, [n, k]. REQUIRES: layout() is kRows.
  TensorView Rows() const;

  // The rest is about panels.
  //
  // Copies rows [row, row + source.dim(0)) from `source` [rows, k] (f32, bf16 or f16; rows may be strided), converted
  // to dtype(). Fused layers call it once a part. Safe from several threads for disjoint panels only.
  void PackRows(int64_t row, const TensorView& source);

  // out[0..k) = row `row` in float32: the inverse of PackRows.
  void UnpackRow(int64_t row, std::span<float> out) const;

  DType dtype() const { return dtype_; }
  MatrixLayout layout() const { return layout_; }
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  int64_t k_padded() const { return k_padded_; }
  std::span<const int64_t> slice_bounds() const { return slice_bounds_; }    // in columns of x
  std::span<const int64_t> packed_bounds() const { return packed_bounds_; }  // in packed K; even
  // Panel p: k_padded() * 16 elements.
  const void* Panel(int64_t p) const;
  int64_t num_panels() const { return CeilDiv(n_, kPanelWidth); }
  size_t size_bytes() const;

  // All that kernels read: the panels and the zeros after them. May be replaced by other memory with the same contents.
  Tensor& memory() { return data_; }
  // Dtype, sizes and slices: what decides the layout.
  std::string Form() const;

  // size_bytes() of a matrix of this form, without making it.
  static int64_t SizeBytes(DType dtype, int64_t n, const std::vector<int64_t>& slice_bounds,
                           MatrixLayout layout = MatrixLayout::kPanels);

 private:
  DType dtype_ = DType::kFloat32;
  MatrixLayout layout_ = MatrixLayout::kPanels;
  int64_t n_ = 0;
  int64_t k_ = 0;
  int64_t k_padded_ = 0;
  std::vector<int64_t> slice_bounds_;
  std::vector<int64_t> packed_bounds_;
  Tensor data_;
};

}  // namespace heddle
