// Where the ops of a rank run: on CPU its threads and the instruction set chosen for it; on a GPU a CUDA stream, beside
// threads that read weights and sample.
//
// One stream a rank, used by that rank's thread only. Ops are synchronous on CPU; on a GPU they are launched in order
// and return at once. Scratch memory that CPU ops need lives here too and is allocated once: Scratch(n) grows only
// while the first batches of the largest size are seen.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>

#include "device/cpu_isa.h"
#include "device/cuda_stream.h"
#include "device/thread_pool.h"

namespace heddle {

class Stream {
 public:
  // Ops run on the GPU if `cuda` is given.
  Stream(int num_threads, bool oversubscribed, CpuIsa isa, std::unique_ptr<CudaStream> cuda = nullptr)
      : threads_(num_threads, oversubscribed), isa_(isa), cuda_(std::move(cuda)) {}

  // Null on CPU.
  CudaStream* cuda() const { return cuda_.get(); }

  ThreadPool& threads() { return threads_; }
  const ThreadPool& threads() const { return threads_; }
  CpuIsa isa() const { return isa_; }

  // At least `bytes` of 64-byte-aligned memory with unspecified contents, valid until the next call. Ops split it
  // among threads themselves.
  void* Scratch(size_t bytes);

  // Wall time of all ops so far; on a GPU, of launching them.
  std::chrono::nanoseconds op_time() const { return op_time_; }

 private:
  friend class OpTimer;

  ThreadPool threads_;
  CpuIsa isa_;
  std::unique_ptr<CudaStream> cuda_;
  std::shared_ptr<void> scratch_;
  size_t scratch_bytes_ = 0;
  std::chrono::nanoseconds op_time_{0};
  bool in_op_ = false;
};

// Adds its lifetime to the stream's op_time(). Every op begins with one; that of an op within an op adds nothing.
class OpTimer {
 public:
  explicit OpTimer(Stream& stream) : stream_(stream), outermost_(!stream.in_op_) {
    stream.in_op_ = true;
    if (outermost_) start_ = std::chrono::steady_clock::now();
  }
  ~OpTimer() {
    if (!outermost_) return;
    stream_.op_time_ += std::chrono::steady_clock::now() - start_;
    stream_.in_op_ = false;
  }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;

 private:
  Stream& stream_;
  const bool outermost_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace heddle
