// Failures inside the library are exceptions of one type; the functions of the table catch them (Guard) and answer with
// a status. A message is one sentence.
#pragma once

#include <cuda_runtime_api.h>

#include <new>
#include <string>
#include <utility>

#include "heddle_cuda.h"

namespace heddle::cuda {

struct Failure {
  HeddleCudaStatus status;
  std::string message;
};

[[noreturn]] void Fail(HeddleCudaStatus status, std::string message);

// Throws unless `error` is cudaSuccess: out of memory, sticky (the context is lost) or failed. `what` names the call.
void Check(cudaError_t error, const char* what);

// What a failure of cuBLASLt or NCCL is, which have no word for it: kHeddleCudaSticky where the calling thread's device
// has lost its context, else `status`. Spoils a capture, as a failure does.
HeddleCudaStatus StatusOfLibraryFailure(HeddleCudaStatus status);

// Throws kHeddleCudaInvalid unless `condition`.
inline void Require(bool condition, const char* message) {
  if (!condition) Fail(kHeddleCudaInvalid, message);
}

// What last_error answers on this thread.
const char* LastError() noexcept;
void SetLastError(const char* message) noexcept;

// Runs `body`, which may throw, for a function of the table.
template <typename Body>
HeddleCudaStatus Guard(const Body& body) noexcept {
  try {
    SetLastError("");
    body();
    return kHeddleCudaOk;
  } catch (const Failure& failure) {
    SetLastError(failure.message.c_str());
    return failure.status;
  } catch (const std::bad_alloc&) {
    SetLastError("the system refused host memory");
    return kHeddleCudaOutOfMemory;
  } catch (...) {
    SetLastError("an unexpected exception inside the CUDA library");
    return kHeddleCudaFailed;
  }
}

}  // namespace heddle::cuda

#define HEDDLE_CUDA_CHECK(call) ::heddle::cuda::Check((call), #call)
