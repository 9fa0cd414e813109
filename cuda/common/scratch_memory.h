// The parts of an op's scratch memory.
#pragma once

#include "common/rounding.h"
#include "common/stream.h"

namespace heddle::cuda {

// Memory from the front of the stream's workspace on, on 256 bytes each. Valid until the next op takes its own.
class ScratchMemory {
 public:
  explicit ScratchMemory(const HeddleCudaStream& stream) : stream_(stream) {}

  // Fails as HeddleCudaStream::Scratch.
  template <typename T>
  T* Take(int64_t count) {
    const int64_t begin = used_;
    used_ = RoundUp(used_ + count * static_cast<int64_t>(sizeof(T)), 256);
    stream_.Scratch(used_);
    return reinterpret_cast<T*>(static_cast<unsigned char*>(stream_.workspace) + begin);
  }
  void* Rest() const { return static_cast<unsigned char*>(stream_.workspace) + used_; }
  int64_t RestBytes() const { return stream_.workspace_bytes - used_; }

 private:
  const HeddleCudaStream& stream_;
  int64_t used_ = 0;
};

}  // namespace heddle::cuda
