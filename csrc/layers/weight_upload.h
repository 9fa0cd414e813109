// Brings stored weights into device memory, one page-locked buffer after another: all of the rank's threads read parts
// of it, then the device copies it as a whole while they read the next.
//
// On the rank's thread. One a rank, for as long as its model loads.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "device/stream.h"
#include "loader/weight_source.h"
#include "tensor/sharding.h"

namespace heddle {

class WeightUploader {
 public:
  // REQUIRES: the stream is a GPU's. `cancelled` outlives this.
  WeightUploader(Stream& stream, const std::atomic<bool>& cancelled);
  ~WeightUploader();
  WeightUploader(const WeightUploader&) = delete;
  WeightUploader& operator=(const WeightUploader&) = delete;

  // to = the block rows x columns of `stored`, converted to its dtype. `to` [rows, columns] is device memory; the
  // copies are done when the stream has come so far. Fails with kCancelled, and as StoredTensor::Read does; the next
  // call may succeed.
  void Upload(const StoredTensor& stored, Range rows, Range columns, const TensorView& to);

 private:
  // Page-locked memory that is free again once `copied` is reached.
  struct Buffer {
    explicit Buffer(CudaEvent event) : copied(std::move(event)) {}
    std::shared_ptr<void> data;
    CudaEvent copied;
  };

  void Reserve(size_t bytes);
  void ReadPart(const StoredTensor& stored, int64_t first_row, int64_t num_rows, DType dtype, void* to) const;

  Stream& stream_;
  const std::atomic<bool>& cancelled_;
  std::vector<Buffer> buffers_;  // used in turn
  size_t next_buffer_ = 0;
  size_t buffer_bytes_ = 0;
};

}  // namespace heddle
