#include "common/error.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace heddle::cuda {
namespace {

thread_local std::array<char, 1024> last_error{};

HeddleCudaStatus StatusOf(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return kHeddleCudaOutOfMemory;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInitializationError:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorDevicesUnavailable:
    case cudaErrorStubLibrary:
      return kHeddleCudaUnavailable;
    // After these every call on the device fails until the process ends.
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorExternalDevice:
    case cudaErrorMpsClientTerminated:
    case cudaErrorContextIsDestroyed:
      return kHeddleCudaSticky;
    default:
      return kHeddleCudaFailed;
  }
}

}  // namespace

void Fail(HeddleCudaStatus status, std::string message) { throw Failure{status, std::move(message)}; }

void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // a failure that is not sticky must not be found again by the next call
  Fail(StatusOf(error), std::string(what) + " failed: " + cudaGetErrorString(error));
}

HeddleCudaStatus StatusOfLibraryFailure(HeddleCudaStatus status) {
  // Any call will do that asks the context, since the library has come upon the error already.
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  const cudaError_t error = cudaMemGetInfo(&free_bytes, &total_bytes);
  cudaGetLastError();
  return StatusOf(error) == kHeddleCudaSticky ? kHeddleCudaSticky : status;
}

const char* LastError() noexcept { return last_error.data(); }

void SetLastError(const char* message) noexcept {
  const size_t length = std::min(std::strlen(message), last_error.size() - 1);
  std::memcpy(last_error.data(), message, length);
  last_error[length] = '\0';
}

}  // namespace heddle::cuda
