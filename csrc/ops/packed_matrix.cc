#include "ops/packed_matrix.h"

#include <algorithm>

#include "base/rounding.h"

namespace heddle {
namespace {

template <typename To>
struct Narrow {
  DType dtype;
  To operator()(float value) const {
    return dtype == DType::kBFloat16 ? FloatToBFloat16(value) : FloatToFloat16(value);
  }
};
template <>
struct Narrow<float> {
  DType dtype;
  float operator()(float value) const { return value; }
};

// Elements from one row to the next in kRows: whole vectors of 16 bytes.
int64_t PaddedRow(DType dtype, int64_t k) {
  const int64_t unit = 16 / static_cast<int64_t>(DTypeSize(dtype));
  return RoundUp(k, unit);
}

// Where element k of output lane `lane` lies in a panel of bf16 pairs, or of plain rows.
int64_t PanelIndex(bool pairs, int64_t k, int64_t lane) {
  return pairs ? (k / 2 * kPanelWidth + lane) * 2 + k % 2 : k * kPanelWidth + lane;
}

// One row of the source into one lane of a panel; same dtype: bits are copied.
template <typename T>
void PackLane(const void* source, DType source_dtype, DType dtype, int64_t begin, int64_t end, int64_t packed_begin,
              int64_t lane, T* panel) {
  const bool pairs = dtype == DType::kBFloat16;
  if (source_dtype == dtype) {
    const T* row = static_cast<const T*>(source);
    for (int64_t k = begin; k < end; ++k) panel[PanelIndex(pairs, packed_begin + k - begin, lane)] = row[k];
    return;
  }
  const Narrow<T> narrow{dtype};
  for (int64_t k = begin; k < end; ++k) {
    panel[PanelIndex(pairs, packed_begin + k - begin, lane)] = narrow(LoadFloat(source_dtype, source, k));
  }
}

}  // namespace

PackedMatrix::PackedMatrix(DType dtype, int64_t n, int64_t k, std::vector<int64_t> slice_bounds, MatrixLayout layout,
                           Allocator* allocator)
    : dtype_(dtype), layout_(layout), n_(n), k_(k), slice_bounds_(std::move(slice_bounds)) {
  const auto num_slices = static_cast<int>(slice_bounds_.size()) - 1;
  HEDDLE_CHECK(num_slices >= 1 && num_slices <= kNumReductionSlices && (num_slices & (num_slices - 1)) == 0,
               std::to_string(num_slices) + " slices");
  HEDDLE_CHECK(slice_bounds_.front() == 0 && slice_bounds_.back() == k &&
                   std::is_sorted(slice_bounds_.begin(), slice_bounds_.end()),
               "slices must cover the columns");
  packed_bounds_.push_back(0);
  for (int s = 0; s < num_slices; ++s) {
    const auto i = static_cast<size_t>(s);
    packed_bounds_.push_back(packed_bounds_[i] + (slice_bounds_[i + 1] - slice_bounds_[i] + 1) / 2 * 2);
  }
  k_padded_ = layout == MatrixLayout::kPanels ? packed_bounds_.back() : PaddedRow(dtype, k);
  // Zeros after the end: a tile of 32 in K may begin in the last two of a slice.
  constexpr int64_t kTileK = 32;
  const Shape shape =
      layout == MatrixLayout::kPanels ? Shape{num_panels() * k_padded_ + kTileK, kPanelWidth} : Shape{n, k_padded_};
  data_ = allocator != nullptr ? Tensor(dtype, shape, *allocator) : Tensor(dtype, shape);
}

TensorView PackedMatrix::Rows() const {
  HEDDLE_CHECK(layout_ == MatrixLayout::kRows, "a matrix of panels");
  return {data_.view().data, dtype_, {n_, k_}, k_padded_};
}

void PackedMatrix::PackRows(int64_t row, const TensorView& source) {
  HEDDLE_CHECK(source.dim(1) == k_ && row >= 0 && row + source.dim(0) <= n_,
               "rows " + source.shape.ToString() + " at " + std::to_string(row));
  const auto element = static_cast<int64_t>(DTypeSize(source.dtype));
  // Columns in strips: sixteen rows of a strip stay in the first cache level while their panel is written.
  constexpr int64_t kStrip = 256;
  const int64_t end_row = row + source.dim(0);
  for (int64_t panel_begin = row; panel_begin < end_row;) {
    const int64_t p = panel_begin / kPanelWidth;
    const int64_t panel_end = std::min(end_row, (p + 1) * kPanelWidth);
    void* panel = const_cast<void*>(Panel(p));
    for (size_t s = 0; s + 1 < slice_bounds_.size(); ++s) {
      for (int64_t begin = slice_bounds_[s]; begin < slice_bounds_[s + 1]; begin += kStrip) {
        const int64_t end = std::min(begin + kStrip, slice_bounds_[s + 1]);
        const int64_t packed_begin = packed_bounds_[s] + begin - slice_bounds_[s];
        for (int64_t r = panel_begin; r < panel_end; ++r) {
          const void* values = static_cast<const char*>(source.data) + (r - row) * source.row_stride * element;
          if (dtype_ == DType::kFloat32) {
            PackLane(values, source.dtype, dtype_, begin, end, packed_begin, r % kPanelWidth,
                     static_cast<float*>(panel));
          } else {
            PackLane(values, source.dtype, dtype_, begin, end, packed_begin, r % kPanelWidth,
                     static_cast<uint16_t*>(panel));
          }
        }
      }
    }
    panel_begin = panel_end;
  }
}

void PackedMatrix::UnpackRow(int64_t row, std::span<float> out) const {
  HEDDLE_CHECK(row >= 0 && row < n_ && static_cast<int64_t>(out.size()) == k_, "row " + std::to_string(row));
  const void* panel = Panel(row / kPanelWidth);
  const int64_t lane = row % kPanelWidth;
  const bool pairs = dtype_ == DType::kBFloat16;
  for (size_t s = 0; s + 1 < slice_bounds_.size(); ++s) {
    for (int64_t k = slice_bounds_[s]; k < slice_bounds_[s + 1]; ++k) {
      out[static_cast<size_t>(k)] =
          LoadFloat(dtype_, panel, PanelIndex(pairs, packed_bounds_[s] + k - slice_bounds_[s], lane));
    }
  }
}

const void* PackedMatrix::Panel(int64_t p) const {
  return static_cast<const char*>(data_.view().data) +
         p * k_padded_ * kPanelWidth * static_cast<int64_t>(DTypeSize(dtype_));
}

std::string PackedMatrix::Form() const {
  std::string form = std::string(DTypeName(dtype_)) + " [" + std::to_string(n_) + ", " + std::to_string(k_) + "]";
  for (const int64_t bound : slice_bounds_) form += " " + std::to_string(bound);
  return form;
}

size_t PackedMatrix::size_bytes() const { return static_cast<size_t>(SizeBytes(dtype_, n_, slice_bounds_, layout_)); }

int64_t PackedMatrix::SizeBytes(DType dtype, int64_t n, const std::vector<int64_t>& slice_bounds, MatrixLayout layout) {
  const auto element = static_cast<int64_t>(DTypeSize(dtype));
  if (layout == MatrixLayout::kRows) return n * PaddedRow(dtype, slice_bounds.back()) * element;
  int64_t k_padded = 0;
  for (size_t i = 1; i < slice_bounds.size(); ++i) k_padded += (slice_bounds[i] - slice_bounds[i - 1] + 1) / 2 * 2;
  return RoundUp(n, kPanelWidth) * k_padded * element;
}

}  // namespace heddle
