#include "layers/weight_upload.h"

#include <algorithm>

namespace heddle {
namespace {

// Large enough that a copy runs at the bus's speed, small enough that few are half full.
constexpr int64_t kPieceBytes = int64_t{4} << 20;

void Convert(const TensorView& from, DType dtype, void* to) {
  const int64_t count = from.shape.NumElements();
  for (int64_t i = 0; i < count; ++i) StoreFloat(dtype, to, i, LoadFloat(from.dtype, from.data, i));
}

}  // namespace

WeightUploader::WeightUploader(Stream& stream, const std::atomic<bool>& cancelled)
    : stream_(stream), cancelled_(cancelled) {
  for (int i = 0; i < 2; ++i) rounds_.push_back({{}, stream.cuda()->CreateEvent()});
}

// Waits for copies out of buffers that it replaces.
void WeightUploader::Reserve(size_t bytes) {
  if (bytes <= buffer_bytes_) return;
  for (Round& round : rounds_) {
    round.copied.Wait(&cancelled_);
    round.buffers.clear();
    for (int thread = 0; thread < stream_.threads().num_threads(); ++thread) {
      round.buffers.push_back(stream_.cuda()->AllocatePinned(bytes));
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
  Reserve(static_cast<size_t>(step * row_bytes));
  const int64_t num_threads = stream_.threads().num_threads();
  for (int64_t first = 0; first < rows.size(); first += step * num_threads) {
    Round& round = rounds_[next_round_++ % rounds_.size()];
    round.copied.Wait(&cancelled_);
    const auto piece_of = [&](int64_t thread) -> Piece {
      return {std::min(rows.size(), first + thread * step), std::min(rows.size(), first + (thread + 1) * step)};
    };
    stream_.threads().Run([&](int thread) {
      const auto [begin, end] = piece_of(thread);
      if (begin == end) return;
      ReadPiece(stored, rows.begin + begin, end - begin, to.dtype, round.buffers[static_cast<size_t>(thread)].get());
    });
    for (int64_t thread = 0; thread < num_threads; ++thread) {
      const auto [begin, end] = piece_of(thread);
      if (begin == end) continue;
      const char* buffer = static_cast<const char*>(round.buffers[static_cast<size_t>(thread)].get());
      stream_.cuda()->CopyRows(to.Rows(begin, end).data, to.row_stride * element, buffer + columns.begin * element,
                               row_bytes, columns.size() * element, end - begin);
    }
    round.copied.Record();
  }
}

}  // namespace heddle
