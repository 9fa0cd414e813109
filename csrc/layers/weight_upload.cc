#include "layers/weight_upload.h"

#include <algorithm>

namespace heddle {
namespace {

// Large enough that a copy runs at the bus's speed, small enough to stay in a core's cache until it is copied.
constexpr int64_t kPieceBytes = int64_t{2} << 20;
constexpr int kBuffersPerThread = 2;

void Convert(const TensorView& from, DType dtype, void* to) {
  const int64_t count = from.shape.NumElements();
  for (int64_t i = 0; i < count; ++i) StoreFloat(dtype, to, i, LoadFloat(from.dtype, from.data, i));
}

}  // namespace

WeightUploader::WeightUploader(Stream& stream, const std::atomic<bool>& cancelled)
    : stream_(stream), cancelled_(cancelled) {
  const auto num_threads = static_cast<size_t>(stream.threads().num_threads());
  next_buffer_.resize(num_threads);
  for (size_t thread = 0; thread < num_threads; ++thread) {
    std::vector<Buffer>& buffers = buffers_.emplace_back();
    for (int i = 0; i < kBuffersPerThread; ++i) buffers.emplace_back(stream.cuda()->CreateEvent());
  }
}

WeightUploader::~WeightUploader() {
  stream_.cuda()->Drain();  // the buffers are being copied
}

// Waits for copies out of buffers that it replaces.
void WeightUploader::Reserve(size_t bytes) {
  if (bytes <= buffer_bytes_) return;
  for (std::vector<Buffer>& buffers : buffers_) {
    for (Buffer& buffer : buffers) {
      buffer.copied.Wait();
      buffer.data = stream_.cuda()->AllocatePinned(bytes);
    }
  }
  buffer_bytes_ = bytes;
}

void WeightUploader::ReadPiece(const StoredTensor& stored, int64_t first_row, int64_t num_rows, DType dtype,
                               void* buffer) const {
  if (cancelled_.load(std::memory_order_relaxed)) throw Error(ErrorCode::kCancelled, "loading was cancelled");
  const Shape shape{num_rows, stored.shape()[1]};
  if (stored.dtype() == dtype) return stored.Read(first_row, TensorView(buffer, dtype, shape));
  const Tensor piece(stored.dtype(), shape);
  stored.Read(first_row, piece);
  Convert(piece, dtype, buffer);
}

void WeightUploader::Upload(const StoredTensor& stored, Range rows, Range columns, const TensorView& to) {
  HEDDLE_CHECK(to.dim(0) == rows.size() && to.dim(1) == columns.size(), to.shape.ToString());
  const auto element = static_cast<int64_t>(DTypeSize(to.dtype));
  const int64_t row_bytes = stored.shape()[1] * element;
  const int64_t step = std::max<int64_t>(1, kPieceBytes / std::max<int64_t>(row_bytes, 1));
  Reserve(static_cast<size_t>(std::max(kPieceBytes, row_bytes)));
  std::atomic<int64_t> next_row{0};
  stream_.threads().RunShared([&](int thread) {
    const auto index = static_cast<size_t>(thread);
    for (int64_t begin; (begin = next_row.fetch_add(step)) < rows.size();) {
      const int64_t end = std::min(rows.size(), begin + step);
      Buffer& buffer = buffers_[index][next_buffer_[index]++ % kBuffersPerThread];
      buffer.copied.Wait();
      ReadPiece(stored, rows.begin + begin, end - begin, to.dtype, buffer.data.get());

      const std::lock_guard lock(launch_mutex_);
      stream_.cuda()->CopyRows(to.Rows(begin, end).data, to.row_stride * element,
                               static_cast<const char*>(buffer.data.get()) + columns.begin * element, row_bytes,
                               columns.size() * element, end - begin);
      buffer.copied.Record();
    }
  });
}

}  // namespace heddle
