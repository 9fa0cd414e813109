// Brings stored weights into device memory: each of the rank's threads reads pieces into page-locked buffers of its own
// and has each copied as soon as it is full, so that reading and copying never wait for a slower piece.
//
// On the rank's thread. One a rank, for as long as its model loads.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
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
  // copies are done when the stream has come so far. Fails with kCancelled, and as StoredTensor::Read does.
  void Upload(const StoredTensor& stored, Range rows, Range columns, const TensorView& to);

 private:
  // Page-locked memory that is free again once `copied` is reached.
  struct Buffer {
    explicit Buffer(CudaEvent event) : copied(std::move(event)) {}
    std::shared_ptr<void> data;
    CudaEvent copied;
  };

  void Reserve(size_t bytes);
  void ReadPiece(const StoredTensor& stored, int64_t first_row, int64_t num_rows, DType dtype, void* buffer) const;

  Stream& stream_;
  const std::atomic<bool>& cancelled_;
  std::vector<std::vector<Buffer>> buffers_;  // of each thread, in turn
  std::vector<size_t> next_buffer_;           // of each thread
  size_t buffer_bytes_ = 0;
  std::mutex launch_mutex_;  // a stream belongs to one thread at a time
};

}  // namespace heddle
