#include "layers/weight_upload.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "layers/matrix_rows.h"
#include "tensor/sparse_group.h"

namespace heddle {
namespace {

// Large enough for copies at the bus's speed, and for one to outlast what threads lose when they come together. Larger
// ones no longer stay in the processor's caches, and cost a quarter of the speed.
constexpr int64_t kBufferBytes = int64_t{16} << 20;
constexpr int64_t kPartBytes = int64_t{256} << 10;
constexpr int kNumBuffers = 4;

void Convert(const TensorView& from, DType dtype, void* to) {
  const int64_t count = from.shape.NumElements();
  for (int64_t i = 0; i < count; ++i) StoreFloat(dtype, to, i, LoadFloat(from.dtype, from.data, i));
}

// One row [1, columns] of int8 values, or of floats that become the format's, as a HeddleCudaWeight has it.
void FillRow(const TensorView& row, const MatrixFormat& format, char* values, char* metadata) {
  const auto store = [&](int64_t to, int64_t column) {
    if (format.dtype == DType::kInt8) {
      values[to] = static_cast<const char*>(row.data)[column];
    } else {
      StoreFloat(format.dtype, values, to, LoadFloat(row.dtype, row.data, column));
    }
  };
  const int64_t columns = row.dim(1);
  if (!format.sparse) {
    for (int64_t column = 0; column < columns; ++column) store(column, column);
    return;
  }
  const auto is_zero = [&](int64_t column) {
    return format.dtype == DType::kInt8 ? static_cast<const char*>(row.data)[column] == 0
                                        : LoadFloat(row.dtype, row.data, column) == 0;
  };
  for (int64_t group = 0; group < columns / kSparseGroup; ++group) {
    const int64_t begin = group * kSparseGroup;
    const unsigned stored = StoredOfGroup([&](int i) { return is_zero(begin + i); });
    const int first = std::countr_zero(stored);
    const int second = std::countr_zero(stored & (stored - 1));
    store(2 * group, begin + first);
    store(2 * group + 1, begin + second);
    const int nibble = first | second << 2;
    char& byte = metadata[group / 2];
    byte = static_cast<char>(group % 2 == 0 ? nibble : byte | nibble << 4);
  }
}

}  // namespace

WeightUploader::WeightUploader(Stream& stream, const std::atomic<bool>& cancelled)
    : stream_(stream), cancelled_(cancelled) {
  for (int i = 0; i < kNumBuffers; ++i) buffers_.emplace_back(stream.cuda()->CreateEvent());
}

WeightUploader::~WeightUploader() {
  stream_.cuda()->Drain();  // the buffers are being copied
}

// Waits for copies out of buffers that it replaces.
void WeightUploader::Reserve(size_t bytes) {
  if (bytes <= buffer_bytes_) return;
  for (Buffer& buffer : buffers_) {
    buffer.copied.Wait();
    buffer.data = stream_.cuda()->AllocatePinned(bytes);
  }
  buffer_bytes_ = bytes;
}

void WeightUploader::CheckNotCancelled() const {
  if (cancelled_.load(std::memory_order_relaxed)) throw Error(ErrorCode::kCancelled, "loading was cancelled");
}

void WeightUploader::ReadPart(const StoredTensor& stored, int64_t first_row, int64_t num_rows, DType dtype,
                              void* to) const {
  const Shape shape{num_rows, stored.shape()[1]};
  if (stored.dtype() == dtype) return stored.Read(first_row, TensorView(to, dtype, shape));
  const Tensor part(stored.dtype(), shape);
  stored.Read(first_row, part);
  Convert(part, dtype, to);
}

void WeightUploader::ForBuffers(int64_t num_rows, int64_t row_bytes, const FillPart& fill, const CopyRows& copy) {
  Reserve(static_cast<size_t>(std::max(kBufferBytes, row_bytes)));
  const auto rows_in = [&](int64_t bytes) { return std::max<int64_t>(1, bytes / std::max<int64_t>(row_bytes, 1)); };
  const int64_t buffer_rows = rows_in(kBufferBytes);
  const int64_t part_rows = rows_in(kPartBytes);
  for (int64_t begin = 0; begin < num_rows; begin += buffer_rows) {
    const int64_t end = std::min(num_rows, begin + buffer_rows);
    Buffer& buffer = buffers_[next_buffer_++ % buffers_.size()];
    char* const data = static_cast<char*>(buffer.data.get());
    buffer.copied.Wait();
    stream_.threads().RunPieces(end - begin, part_rows, [&](int, int64_t part, int64_t part_end) {
      CheckNotCancelled();
      fill(data + part * row_bytes, begin + part, begin + part_end);
    });
    copy(data, begin, end);
    buffer.copied.Record();
  }
}

void WeightUploader::Upload(const StoredTensor& stored, Range rows, Range columns, const TensorView& to) {
  const auto element = static_cast<int64_t>(DTypeSize(to.dtype));
  const int64_t row_bytes = stored.shape()[1] * element;
  ForBuffers(
      rows.size(), row_bytes,
      [&](char* buffer, int64_t begin, int64_t end) {
        ReadPart(stored, rows.begin + begin, end - begin, to.dtype, buffer);
      },
      [&](const char* buffer, int64_t begin, int64_t end) {
        stream_.cuda()->CopyRows(to.Rows(begin, end).data, to.row_stride * element, buffer + columns.begin * element,
                                 row_bytes, columns.size() * element, end - begin);
      });
}

void WeightUploader::UploadCompressed(const std::string& name, const StoredTensor& stored, Range rows, Range columns,
                                      int64_t at, const PackedMatrix& to) {
  const TensorView values = to.Rows();
  const TensorView scales = to.RowScales();
  const TensorView metadata = to.RowMetadata();
  // A row of a buffer: values and metadata in the bytes that they have there, and a scale.
  const int64_t value_bytes = RoundUp(values.row_stride * static_cast<int64_t>(DTypeSize(values.dtype)), 16);
  const int64_t metadata_bytes = metadata.data != nullptr ? metadata.dim(1) : 0;
  constexpr int64_t kScaleBytes = 16;
  const int64_t row_bytes = value_bytes + metadata_bytes + kScaleBytes;
  const auto fill = [&](char* buffer, int64_t begin, int64_t end) {
    const MatrixRows part = ReadMatrixRows(name, stored, rows.begin + begin, end - begin, to.format());
    for (int64_t row = 0; row < end - begin; ++row, buffer += row_bytes) {
      const TensorView shard = part.values.view().Rows(row, row + 1).Columns(columns.begin, columns.end);
      FillRow(shard, to.format(), buffer, buffer + value_bytes);
      if (part.scales.empty()) continue;
      std::memcpy(buffer + value_bytes + metadata_bytes, &part.scales[static_cast<size_t>(row)], sizeof(float));
    }
  };
  const auto copy = [&](const char* buffer, int64_t begin, int64_t end) {
    CudaStream& cuda = *stream_.cuda();
    const auto copy_part = [&](const TensorView& part, int64_t offset, int64_t bytes) {
      if (part.data == nullptr) return;
      const int64_t pitch = part.row_stride * static_cast<int64_t>(DTypeSize(part.dtype));
      cuda.CopyRows(static_cast<char*>(part.data) + (at + begin) * pitch, pitch, buffer + offset, row_bytes, bytes,
                    end - begin);
    };
    copy_part(values, 0, values.dim(1) * static_cast<int64_t>(DTypeSize(values.dtype)));
    copy_part(metadata, value_bytes, metadata_bytes);
    copy_part(scales, value_bytes + metadata_bytes, sizeof(float));
  };
  ForBuffers(rows.size(), row_bytes, fill, copy);
}

void WeightUploader::Upload(const std::string& name, const StoredTensor& stored, Range rows, Range columns, int64_t at,
                            const PackedMatrix& to) {
  HEDDLE_CHECK(at + rows.size() <= to.n() && to.k() == columns.size(), to.Form());
  const MatrixFormat& format = to.format();
  if (format.dtype == DType::kInt8 || format.sparse || stored.dtype() == DType::kInt8) {
    return UploadCompressed(name, stored, rows, columns, at, to);
  }
  Upload(stored, rows, columns, to.Rows().Rows(at, at + rows.size()));
}

}  // namespace heddle
