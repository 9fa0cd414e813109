// Brings stored weights into device memory: the rank's threads read pieces into page-locked buffers while those of the
// round before are copied.
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

  // to = the block rows x columns of `stored`, converted to its dtype. `to` [rows, columns] is device memory; the
  // copies are done when the stream has come so far. Fails with kCancelled, and as StoredTensor::Read does.
  void Upload(const StoredTensor& stored, Range rows, Range columns, const TensorView& to);

 private:
  struct Piece {
    int64_t begin = 0;  // rows of `to`
    int64_t end = 0;
  };
  // What one round of reading fills, a buffer a thread.
  struct Round {
    std::vector<std::shared_ptr<void>> buffers;
    CudaEvent copied;
  };

  void Reserve(size_t bytes);
  void ReadPiece(const StoredTensor& stored, int64_t first_row, int64_t num_rows, DType dtype, void* buffer) const;

  Stream& stream_;
  const std::atomic<bool>& cancelled_;
  std::vector<Round> rounds_;
  size_t buffer_bytes_ = 0;
  size_t next_round_ = 0;
};

}  // namespace heddle
