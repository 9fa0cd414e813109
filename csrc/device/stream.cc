#include "device/stream.h"

#include "device/buffer.h"

namespace heddle {

void* Stream::Scratch(size_t bytes) {
  if (bytes > scratch_bytes_) {
    scratch_.reset();  // first, so that the two never exist at the same time
    scratch_bytes_ = 0;
    scratch_ = AllocateHost(bytes);
    scratch_bytes_ = bytes;
  }
  return scratch_.get();
}

}  // namespace heddle
