// Where the ops of a rank run: on CPU its threads and the instruction set chosen for it; on a GPU a CUDA stream.
//
// One stream a rank, used by that rank's thread only. Ops are synchronous on CPU. Scratch memory that ops need lives
// here too and is allocated once: Scratch(n) grows only while the first batches of the largest size are seen.
#pragma once

#include <cstddef>
#include <memory>

#include "device/cpu_isa.h"
#include "device/thread_pool.h"

namespace heddle {

class Stream {
 public:
  Stream(int num_threads, bool oversubscribed, CpuIsa isa) : threads_(num_threads, oversubscribed), isa_(isa) {}

  ThreadPool& threads() { return threads_; }
  const ThreadPool& threads() const { return threads_; }
  CpuIsa isa() const { return isa_; }

  // At least `bytes` of 64-byte-aligned memory with unspecified contents, valid until the next call. Ops split it
  // among threads themselves.
  void* Scratch(size_t bytes);

 private:
  ThreadPool threads_;
  CpuIsa isa_;
  std::shared_ptr<void> scratch_;
  size_t scratch_bytes_ = 0;
};

}  // namespace heddle
