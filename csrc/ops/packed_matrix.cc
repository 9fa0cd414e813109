#include "ops/packed_matrix.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "base/rounding.h"
#include "tensor/sparse_group.h"

namespace heddle {
namespace {

constexpr int64_t kQuad = 4;  // neighbours of K
constexpr int64_t kBlockQuads = 8;
constexpr int64_t kBlock = kBlockQuads * kQuad;
constexpr int64_t kChoicesBytes = 8;  // of a quad
constexpr unsigned kFirstTwo = 3;
constexpr int64_t kQuadValues = 2 * kPanelWidth;
// Zeros after the end: a tile of 32 in K, of 64 if int8, may begin in the last two, or four, of a slice.
constexpr int64_t kZeroBytes = 2048;
constexpr int64_t kAlignment = 64;  // of what follows the panels

int64_t ElementSize(DType dtype) { return static_cast<int64_t>(DTypeSize(dtype)); }

// Where element k of output `lane` lies in a dense panel.
int64_t PanelIndex(DType dtype, int64_t k, int64_t lane) {
  const int64_t together = dtype == DType::kInt8 ? 4 : dtype == DType::kBFloat16 ? 2 : 1;
  return (k / together * kPanelWidth + lane) * together + k % together;
}

int64_t SliceUnit(const MatrixFormat& format) {
  if (format.sparse) return kBlock;
  return format.dtype == DType::kInt8 ? kQuad : 2;
}

// Elements from one row to the next in kRows: whole vectors of 16 bytes.
int64_t PaddedRow(const MatrixFormat& format, int64_t k) {
  return RoundUp(k, 16 / ElementSize(format.dtype) * (format.sparse ? 2 : 1));
}

// Bytes from a sparse row's metadata to the next one's: a nibble a group, in whole vectors of 16 bytes.
int64_t MetadataStride(int64_t k) { return RoundUp(CeilDiv(k, 2 * kSparseGroup), 16); }

// What lies where, in bytes.
struct Layout {
  Layout(const MatrixFormat& format, int64_t n, const std::vector<int64_t>& slice_bounds, MatrixLayout layout) {
    const int64_t element = ElementSize(format.dtype);
    const auto num_slices = static_cast<int64_t>(slice_bounds.size()) - 1;
    const int64_t num_panels = CeilDiv(n, kPanelWidth);
    const bool scaled = format.dtype == DType::kInt8;
    if (layout == MatrixLayout::kRows) {
      k_padded = PaddedRow(format, slice_bounds.back());
      scales = n * k_padded * element / (format.sparse ? 2 : 1);
      if (scaled) scales = RoundUp(scales, kAlignment);
      metadata = scales + (scaled ? n * static_cast<int64_t>(sizeof(float)) : 0);
      if (format.sparse) metadata = RoundUp(metadata, kAlignment);
      end = metadata + (format.sparse ? n * MetadataStride(slice_bounds.back()) : 0);
      return;
    }
    packed_bounds.push_back(0);
    for (size_t i = 1; i < slice_bounds.size(); ++i) {
      packed_bounds.push_back(packed_bounds.back() + RoundUp(slice_bounds[i] - slice_bounds[i - 1], SliceUnit(format)));
    }
    k_padded = packed_bounds.back();
    panel_bytes =
        format.sparse ? k_padded / kQuad * (kChoicesBytes + kQuadValues * element) : k_padded * kPanelWidth * element;
    scales = num_panels * panel_bytes;
    if (scaled) scales = RoundUp(scales, kAlignment);
    const int64_t width = kPanelWidth * static_cast<int64_t>(sizeof(float));
    sums = scales + (scaled ? num_panels * width : 0);
    end = sums + (scaled ? num_panels * num_slices * width : 0);
  }
  std::vector<int64_t> packed_bounds;
  int64_t k_padded = 0;
  int64_t panel_bytes = 0;
  int64_t scales = 0;
  int64_t sums = 0;      // of panels
  int64_t metadata = 0;  // of rows
  int64_t end = 0;
};

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

// One row of the source into one lane of a dense panel; same dtype: bits are copied.
template <typename T>
void PackLane(const void* source, DType source_dtype, DType dtype, int64_t begin, int64_t end, int64_t packed_begin,
              int64_t lane, T* panel) {
  if (source_dtype == dtype) {
    const T* row = static_cast<const T*>(source);
    for (int64_t k = begin; k < end; ++k) panel[PanelIndex(dtype, packed_begin + k - begin, lane)] = row[k];
    return;
  }
  if constexpr (sizeof(T) > 1) {
    const Narrow<T> narrow{dtype};
    for (int64_t k = begin; k < end; ++k) {
      panel[PanelIndex(dtype, packed_begin + k - begin, lane)] = narrow(LoadFloat(source_dtype, source, k));
    }
  }
}

// The same into a sparse panel. REQUIRES: whole groups.
template <typename T>
void PackSparseLane(const void* source, DType source_dtype, DType dtype, int64_t begin, int64_t end,
                    int64_t packed_begin, int64_t lane, char* panel) {
  constexpr unsigned kMagnitude = sizeof(T) == 1 ? 0xff : 0x7fff;
  const auto element = [&](int64_t k) -> T {
    if (source_dtype == dtype) return static_cast<const T*>(source)[k];
    if constexpr (sizeof(T) > 1) return Narrow<T>{dtype}(LoadFloat(source_dtype, source, k));
    return 0;
  };
  constexpr int64_t kValuesBytes = kQuadValues * static_cast<int64_t>(sizeof(T));
  for (int64_t k = begin; k < end; k += kQuad) {
    const int64_t quad = (packed_begin + k - begin) / kQuad;
    char* const block = panel + quad / kBlockQuads * kBlockQuads * (kChoicesBytes + kValuesBytes);
    char* const choices = block + quad % kBlockQuads * kChoicesBytes + lane / 2;
    char* value = block + kBlockQuads * kChoicesBytes + quad % kBlockQuads * kValuesBytes +
                  lane * 2 * static_cast<int64_t>(sizeof(T));
    const T group[kQuad] = {element(k), element(k + 1), element(k + 2), element(k + 3)};
    const unsigned stored = StoredOfGroup([&](int i) { return (static_cast<unsigned>(group[i]) & kMagnitude) == 0; });
    HEDDLE_CHECK(std::popcount(stored) == 2, "a group of four with more than two values");
    for (unsigned left = stored; left != 0; left &= left - 1, value += sizeof(T)) {
      std::memcpy(value, &group[std::countr_zero(left)], sizeof(T));
    }
    const unsigned shift = 4 * (lane % 2);
    const unsigned others = static_cast<unsigned char>(*choices) & ~(0xfu << shift);
    *choices = static_cast<char>(others | (stored ^ kFirstTwo) << shift);
  }
}

}  // namespace

PackedMatrix::PackedMatrix(const MatrixFormat& format, int64_t n, int64_t k, std::vector<int64_t> slice_bounds,
                           MatrixLayout layout, Allocator* allocator)
    : format_(format), layout_(layout), n_(n), k_(k), slice_bounds_(std::move(slice_bounds)) {
  const int slices = num_slices();
  HEDDLE_CHECK(slices >= 1 && slices <= kNumReductionSlices && (slices & (slices - 1)) == 0,
               std::to_string(slices) + " slices");
  HEDDLE_CHECK(slice_bounds_.front() == 0 && slice_bounds_.back() == k &&
                   std::is_sorted(slice_bounds_.begin(), slice_bounds_.end()),
               "slices must cover the columns");
  HEDDLE_CHECK(!format.sparse || format.dtype != DType::kFloat32, "sparse float32");
  for (const int64_t bound : slice_bounds_) {
    HEDDLE_CHECK(!format.sparse || bound % kSparseGroup == 0, "a slice from column " + std::to_string(bound));
  }
  Layout where(format, n, slice_bounds_, layout);
  packed_bounds_ = std::move(where.packed_bounds);
  k_padded_ = where.k_padded;
  panel_bytes_ = where.panel_bytes;
  scales_offset_ = where.scales;
  sums_offset_ = where.sums;
  metadata_offset_ = where.metadata;
  const Shape bytes{where.end + (layout == MatrixLayout::kPanels ? kZeroBytes : 0)};
  data_ = allocator != nullptr ? Tensor(DType::kInt8, bytes, *allocator) : Tensor(DType::kInt8, bytes);
}

TensorView PackedMatrix::Rows() const {
  HEDDLE_CHECK(layout_ == MatrixLayout::kRows, "a matrix of panels");
  const int64_t stored = format_.sparse ? 2 : 1;  // columns for each that is stored
  return {data_.view().data, dtype(), {n_, k_ / stored}, k_padded_ / stored};
}

TensorView PackedMatrix::RowScales() const {
  HEDDLE_CHECK(layout_ == MatrixLayout::kRows, "a matrix of panels");
  if (dtype() != DType::kInt8) return {};
  return {Memory(scales_offset_), DType::kFloat32, {n_}};
}

TensorView PackedMatrix::RowMetadata() const {
  HEDDLE_CHECK(layout_ == MatrixLayout::kRows, "a matrix of panels");
  if (!format_.sparse) return {};
  return {Memory(metadata_offset_), DType::kInt8, {n_, MetadataStride(k_)}};
}

void PackedMatrix::PackRows(int64_t row, const TensorView& source, const float* scales) {
  HEDDLE_CHECK(source.dim(1) == k_ && row >= 0 && row + source.dim(0) <= n_,
               "rows " + source.shape.ToString() + " at " + std::to_string(row));
  const bool is_int8 = dtype() == DType::kInt8;
  HEDDLE_CHECK((source.dtype == DType::kInt8) == is_int8 && (scales != nullptr) == is_int8,
               std::string(DTypeName(source.dtype)) + " into " + format_.Name());
  const int64_t end_row = row + source.dim(0);
  for (int64_t begin = row; begin < end_row;) {
    const int64_t p = begin / kPanelWidth;
    const int64_t end = std::min(end_row, (p + 1) * kPanelWidth);
    PackPanel(source.Rows(begin - row, end - row), begin % kPanelWidth, const_cast<void*>(Panel(p)));
    if (is_int8) PackScales(begin, source.Rows(begin - row, end - row), scales + (begin - row));
    begin = end;
  }
}

// Rows of `source` into the lanes of a panel from `first_lane` on.
void PackedMatrix::PackPanel(const TensorView& source, int64_t first_lane, void* panel) const {
  // Columns in strips: sixteen rows of a strip stay in the first cache level while their panel is written.
  constexpr int64_t kStrip = 256;
  const int64_t row_bytes = source.row_stride * ElementSize(source.dtype);
  for (size_t s = 0; s + 1 < slice_bounds_.size(); ++s) {
    for (int64_t begin = slice_bounds_[s]; begin < slice_bounds_[s + 1]; begin += kStrip) {
      const int64_t end = std::min(begin + kStrip, slice_bounds_[s + 1]);
      const int64_t packed_begin = packed_bounds_[s] + begin - slice_bounds_[s];
      for (int64_t r = 0; r < source.dim(0); ++r) {
        const void* values = static_cast<const char*>(source.data) + r * row_bytes;
        const auto pack = [&](auto* elements) {
          using T = std::remove_pointer_t<decltype(elements)>;
          const int64_t lane = first_lane + r;
          if (!format_.sparse) {
            PackLane(values, source.dtype, dtype(), begin, end, packed_begin, lane, elements);
          } else if constexpr (sizeof(T) < sizeof(float)) {
            PackSparseLane<T>(values, source.dtype, dtype(), begin, end, packed_begin, lane, static_cast<char*>(panel));
          }
        };
        switch (DTypeSize(dtype())) {
          case 1:
            pack(static_cast<uint8_t*>(panel));
            break;
          case 2:
            pack(static_cast<uint16_t*>(panel));
            break;
          default:
            pack(static_cast<float*>(panel));
        }
      }
    }
  }
}

void PackedMatrix::PackScales(int64_t row, const TensorView& source, const float* scales) {
  auto* const all_scales = reinterpret_cast<float*>(Memory(scales_offset_));
  auto* const sums = const_cast<int32_t*>(SliceSums(row / kPanelWidth));
  for (int64_t r = 0; r < source.dim(0); ++r) {
    all_scales[row + r] = scales[r];
    const int8_t* values = source.Row<int8_t>(r);
    for (size_t s = 0; s + 1 < slice_bounds_.size(); ++s) {
      int32_t sum = 0;
      for (int64_t k = slice_bounds_[s]; k < slice_bounds_[s + 1]; ++k) sum += values[k];
      sums[static_cast<int64_t>(s) * kPanelWidth + (row + r) % kPanelWidth] = sum;
    }
  }
}

void PackedMatrix::UnpackRow(int64_t row, std::span<float> out) const {
  HEDDLE_CHECK(row >= 0 && row < n_ && static_cast<int64_t>(out.size()) == k_, "row " + std::to_string(row));
  HEDDLE_CHECK(!format_.sparse, "a sparse matrix");
  const void* panel = Panel(row / kPanelWidth);
  const int64_t lane = row % kPanelWidth;
  for (size_t s = 0; s + 1 < slice_bounds_.size(); ++s) {
    for (int64_t k = slice_bounds_[s]; k < slice_bounds_[s + 1]; ++k) {
      const int64_t at = PanelIndex(dtype(), packed_bounds_[s] + k - slice_bounds_[s], lane);
      float& value = out[static_cast<size_t>(k)];
      if (dtype() == DType::kInt8) {
        value = static_cast<float>(static_cast<const int8_t*>(panel)[at]) * scales()[row];
      } else {
        value = LoadFloat(dtype(), panel, at);
      }
    }
  }
}

const void* PackedMatrix::Panel(int64_t p) const { return Memory(p * panel_bytes_); }

const float* PackedMatrix::scales() const {
  return dtype() == DType::kInt8 ? reinterpret_cast<const float*>(Memory(scales_offset_)) : nullptr;
}

const int32_t* PackedMatrix::SliceSums(int64_t p) const {
  if (dtype() != DType::kInt8) return nullptr;
  return reinterpret_cast<const int32_t*>(Memory(sums_offset_)) + p * num_slices() * kPanelWidth;
}

std::string PackedMatrix::Form() const {
  std::string form = format_.Name() + " [" + std::to_string(n_) + ", " + std::to_string(k_) + "]";
  for (const int64_t bound : slice_bounds_) form += " " + std::to_string(bound);
  return form;
}

size_t PackedMatrix::size_bytes() const { return static_cast<size_t>(SizeBytes(format_, n_, slice_bounds_, layout_)); }

int64_t PackedMatrix::SizeBytes(const MatrixFormat& format, int64_t n, const std::vector<int64_t>& slice_bounds,
                                MatrixLayout layout) {
  return Layout(format, n, slice_bounds, layout).end;
}

}  // namespace heddle
