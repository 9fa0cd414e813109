// A weight matrix in the layout its kernels stream: packed once at load, read-only afterwards.
//
// On CPU panels of 16 outputs; within a panel K runs upwards:
//   float32, float16   [k_padded][16]
//   bfloat16           [k_padded / 2][16][2]
//   int8               [k_padded / 4][16][4]
// A 2:4 sparse panel is made of blocks of 32 neighbours of K, that is of eight quads of four neighbours. Of a quad each
// output stores two: four bits say which, one for each neighbour, those of the first two flipped, so that zeros say
// something too. A block is those bits of its quads, 64 for each, then 32 values of each quad: all in the order of
// outputs, an output's two side by side.
// Int8 panels are followed by the outputs' scales, and by the sums of each output's values over each reduction slice,
// int32 [num_panels][num_slices][16].
// Outputs beyond n and K beyond the slice are zero. K is cut into reduction slices (see kNumReductionSlices); each
// slice starts at a multiple of two, of four (int8) or of a block (2:4) in packed K, so that k_padded >= k.
//
// On a GPU rows, [n][k_padded], each beginning on 16 bytes; slices mean nothing there. Of a 2:4 sparse matrix rows of
// the stored values, [n][k_padded / 2]. Scales of int8 values follow, then for each row of a sparse one its metadata, a
// nibble a group that says which two are stored (HeddleCudaWeight).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/rounding.h"
#include "device/buffer.h"
#include "tensor/matrix_format.h"
#include "tensor/sharding.h"
#include "tensor/tensor.h"

namespace heddle {

inline constexpr int kPanelWidth = 16;

// Packed matrices are kept in files (loader/weight_cache.h): another layout is another number, and so is another order
// of the parts of a fused matrix or another way to cut shards.
inline constexpr int kPackedLayoutVersion = 3;

enum class MatrixLayout { kPanels, kRows };

class PackedMatrix {
 public:
  PackedMatrix() = default;

  // Reserves zeroed memory for [n, k] in `format`, from the allocator or in host memory. `slice_bounds` are ascending
  // columns 0 .. k, one more than there are slices (a power of two, at most kNumReductionSlices): {0, k} for a product
  // that is summed in one go; of a sparse matrix whole groups.
  PackedMatrix(const MatrixFormat& format, int64_t n, int64_t k, std::vector<int64_t> slice_bounds,
               MatrixLayout layout = MatrixLayout::kPanels, Allocator* allocator = nullptr);

  // REQUIRES: layout() is kRows. The matrix itself, [n, k], or the values of a sparse one, [n, k / 2]; scales [n],
  // empty but for int8; metadata of a sparse one, int8 [n, bytes], else empty.
  TensorView Rows() const;
  TensorView RowScales() const;
  TensorView RowMetadata() const;

  // The rest is about panels.
  //
  // Copies rows [row, row + source.dim(0)) from `source` [rows, k] (rows may be strided): of any float type, converted,
  // where the format's dtype is one; else of int8, with the scale of each row. Of a sparse matrix no group has more
  // than two values other than zero. Fused layers call it once a part. Safe from several threads for disjoint panels
  // only.
  void PackRows(int64_t row, const TensorView& source, const float* scales = nullptr);

  // out[0..k) = row `row` in float32: the inverse of PackRows.
  void UnpackRow(int64_t row, std::span<float> out) const;

  const MatrixFormat& format() const { return format_; }
  DType dtype() const { return format_.dtype; }
  MatrixLayout layout() const { return layout_; }
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  int64_t k_padded() const { return k_padded_; }
  std::span<const int64_t> slice_bounds() const { return slice_bounds_; }    // in columns of x
  std::span<const int64_t> packed_bounds() const { return packed_bounds_; }  // in packed K
  int num_slices() const { return static_cast<int>(slice_bounds_.size()) - 1; }
  const void* Panel(int64_t p) const;
  int64_t panel_bytes() const { return panel_bytes_; }
  int64_t num_panels() const { return CeilDiv(n_, kPanelWidth); }
  // Of int8 values, else null: [n] scales, and the sums of panel p over each slice.
  const float* scales() const;
  const int32_t* SliceSums(int64_t p) const;
  size_t size_bytes() const;

  // All that kernels read: panels, scales, sums, and the zeros after them. May be replaced by other memory with the
  // same contents.
  Tensor& memory() { return data_; }
  // Format, sizes and slices: what decides the layout.
  std::string Form() const;

  // size_bytes() of a matrix of this form, without making it.
  static int64_t SizeBytes(const MatrixFormat& format, int64_t n, const std::vector<int64_t>& slice_bounds,
                           MatrixLayout layout = MatrixLayout::kPanels);

 private:
  void PackPanel(const TensorView& source, int64_t first_lane, void* panel) const;
  void PackScales(int64_t row, const TensorView& source, const float* scales);
  char* Memory(int64_t offset) const { return static_cast<char*>(data_.view().data) + offset; }

  MatrixFormat format_;
  MatrixLayout layout_ = MatrixLayout::kPanels;
  int64_t n_ = 0;
  int64_t k_ = 0;
  int64_t k_padded_ = 0;
  int64_t panel_bytes_ = 0;
  int64_t scales_offset_ = 0;  // in bytes, of int8 values
  int64_t sums_offset_ = 0;
  int64_t metadata_offset_ = 0;  // of a sparse matrix of rows
  std::vector<int64_t> slice_bounds_;
  std::vector<int64_t> packed_bounds_;
  Tensor data_;
};

}  // namespace heddle
