// Brings stored weights into device memory, one page-locked buffer after another: all of the rank's threads read parts
// of it, then the device copies it as a whole while they read the next.
//
// On the rank's thread. One a rank, for as long as its model loads.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "device/stream.h"
#include "loader/weight_source.h"
#include "ops/packed_matrix.h"
#include "tensor/sharding.h"

namespace heddle {

class WeightUploader {
 public:
  // REQUIRES: the stream is a GPU's. `cancelled` outlives this.
  WeightUploader(Stream& stream, const std::atomic<bool>& cancelled);
  ~WeightUploader();
  WeightUploader(const WeightUploader&) = delete;
  WeightUploader& operator=(const WeightUploader&) = delete;

  // Rows [at, at + rows.size()) of `to` = the block rows x columns of the tensor `name`, which is `stored`, in the
  // format of `to`. `to` is device memory, in rows; the copies are done when the stream has come so far. Fails with
  // kCancelled, and as ReadMatrixRows does; the next call may succeed.
  void Upload(const std::string& name, const StoredTensor& stored, Range rows, Range columns, int64_t at,
              const PackedMatrix& to);
  // The same for floats, converted to the dtype of `to` [rows, columns].
  void Upload(const StoredTensor& stored, Range rows, Range columns, const TensorView& to);

 private:
  // Page-locked memory that is free again once `copied` is reached.
  struct Buffer {
    explicit Buffer(CudaEvent event) : copied(std::move(event)) {}
    std::shared_ptr<void> data;
    CudaEvent copied;
  };

  // Called with a buffer and rows [begin, end) that are to be brought into it or copied out of it.
  using FillPart = std::function<void(char* buffer, int64_t begin, int64_t end)>;
  using CopyRows = std::function<void(const char* buffer, int64_t begin, int64_t end)>;

  void Reserve(size_t bytes);
  // Buffer by buffer of rows of `row_bytes`: fill(buffer, ...) on all threads, a part each, then copy(buffer, ...).
  void ForBuffers(int64_t num_rows, int64_t row_bytes, const FillPart& fill, const CopyRows& copy);
  // Rows that are int8, sparse or both.
  void UploadCompressed(const std::string& name, const StoredTensor& stored, Range rows, Range columns, int64_t at,
                        const PackedMatrix& to);
  void ReadPart(const StoredTensor& stored, int64_t first_row, int64_t num_rows, DType dtype, void* to) const;
  void CheckNotCancelled() const;

  Stream& stream_;
  const std::atomic<bool>& cancelled_;
  std::vector<Buffer> buffers_;  // used in turn
  size_t next_buffer_ = 0;
  size_t buffer_bytes_ = 0;
};

}  // namespace heddle
