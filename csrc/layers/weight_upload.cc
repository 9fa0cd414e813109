#include "layers/weight_upload.h"

#include <algorithm>

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

void WeightUploader::ReadPart(const StoredTensor& stored, int64_t first_row, int64_t num_rows, DType dtype,
                              void* to) const {
  if (cancelled_.load(std::memory_order_relaxed)) throw Error(ErrorCode::kCancelled, "loading was cancelled");
  const Shape shape{num_rows, stored.shape()[1]};
  if (stored.dtype() == dtype) return stored.Read(first_row, TensorView(to, dtype, shape));
  const Tensor part(stored.dtype(), shape);
  stored.Read(first_row, part);
  Convert(part, dtype, to);
}

void WeightUploader::Upload(const StoredTensor& stored, Range rows, Range columns, const TensorView& to) {
  HEDDLE_CHECK(to.dim(0) == rows.size() && to.dim(1) == columns.size(), to.shape.ToString());
  const auto element = static_cast<int64_t>(DTypeSize(to.dtype));
  const int64_t row_bytes = stored.shape()[1] * element;
  Reserve(static_cast<size_t>(std::max(kBufferBytes, row_bytes)));
  const auto rows_in = [&](int64_t bytes) { return std::max<int64_t>(1, bytes / std::max<int64_t>(row_bytes, 1)); };
  const int64_t buffer_rows = rows_in(kBufferBytes);
  const int64_t part_rows = rows_in(kPartBytes);
  for (int64_t begin = 0; begin < rows.size(); begin += buffer_rows) {
    const int64_t end = std::min(rows.size(), begin + buffer_rows);
    Buffer& buffer = buffers_[next_buffer_++ % buffers_.size()];
    char* const data = static_cast<char*>(buffer.data.get());
    buffer.copied.Wait();
    stream_.threads().RunPieces(end - begin, part_rows, [&](int, int64_t part, int64_t part_end) {
      ReadPart(stored, rows.begin + begin + part, part_end - part, to.dtype, data + part * row_bytes);
    });
    stream_.cuda()->CopyRows(to.Rows(begin, end).data, to.row_stride * element, data + columns.begin * element,
                             row_bytes, columns.size() * element, end - begin);
    buffer.copied.Record();
  }
}

}  // namespace heddle
