#include "common/launch.h"

#include <map>
#include <mutex>
#include <utility>

namespace heddle::cuda {

// The limit is the kernel's, whoever launches it: a thread that needs less must not lower it between another's call and
// that one's launch.
void AllowSharedBytes(const void* kernel, size_t shared_bytes) {
  static std::mutex mutex;
  static std::map<std::pair<int, const void*>, size_t> allowed;
  int device = 0;
  HEDDLE_CUDA_CHECK(cudaGetDevice(&device));
  const std::lock_guard lock(mutex);
  size_t& limit = allowed[{device, kernel}];
  if (shared_bytes <= limit) return;
  HEDDLE_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  limit = shared_bytes;
}

}  // namespace heddle::cuda
