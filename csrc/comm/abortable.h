// What NCCL's communicators and groups of peers have in common: a handle of the CUDA library's that any thread may
// abort, before it is there too, and the code that whoever uses it then fails with.
#pragma once

#include <memory>
#include <mutex>

#include "base/error.h"
#include "device/cuda_library.h"

namespace heddle {

// `kAbort` and `kDestroy` are entries of the table. Adopt and get by one thread, or ordered by other means.
template <typename T, auto kAbort, auto kDestroy>
class Abortable {
 public:
  void Adopt(T* handle) {
    const std::lock_guard lock(mutex_);
    handle_.reset(handle);
    if (aborted_) (CudaApi().*kAbort)(handle);
  }

  // Null before Adopt.
  T* get() const { return handle_.get(); }

  // The first code stands.
  void Abort(ErrorCode code) {
    const std::lock_guard lock(mutex_);
    if (!aborted_) code_ = code;
    aborted_ = true;
    if (handle_ != nullptr) (CudaApi().*kAbort)(handle_.get());
  }

  // Leaves the handle where it is for good: a device may still use it, and to destroy it would wait for that.
  void Abandon() {
    const std::lock_guard lock(mutex_);
    static_cast<void>(handle_.release());
  }

  // As CheckCuda, but with the code of the abort where that is what happened.
  void Check(HeddleCudaStatus status) {
    if (status != kHeddleCudaAborted) return CheckCuda(status);
    const std::lock_guard lock(mutex_);
    throw Error(code_, "the group of ranks was aborted");
  }

 private:
  struct Deleter {
    void operator()(T* handle) const { (CudaApi().*kDestroy)(handle); }
  };

  std::mutex mutex_;
  std::unique_ptr<T, Deleter> handle_;
  bool aborted_ = false;
  ErrorCode code_ = ErrorCode::kRankFailed;
};

}  // namespace heddle
