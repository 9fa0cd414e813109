#include "device/cuda_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#include "base/error.h"

namespace heddle {
namespace {

using GetApi = const HeddleCudaApi* (*)(int32_t);

struct Library {
  const HeddleCudaApi* api = nullptr;
  std::string reason;  // why there is none
};

std::string FolderOfThisModule() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&NumCudaDevices), &info) == 0 || info.dli_fname == nullptr) return ".";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

std::vector<std::string> Candidates() {
  const char* given = std::getenv("HEDDLE_CUDA_LIBRARY");
  if (given != nullptr && *given != '\0') return {given};
  const std::string folder = FolderOfThisModule();
  return {folder + "/libheddle_cuda.so", folder + "/../cuda/libheddle_cuda.so"};
}

// Never closed: CUDA does not survive being unloaded.
Library Open() {
  Library library;
  for (const std::string& path : Candidates()) {
    void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      if (library.reason.empty()) library.reason = dlerror();
      continue;
    }
    const auto get = reinterpret_cast<GetApi>(dlsym(handle, "HeddleCudaGetApi"));
    library.api = get == nullptr ? nullptr : get(HEDDLE_CUDA_API_VERSION);
    if (library.api != nullptr) return library;
    library.reason = path + " is of another version";
  }
  return library;
}

const Library& TheLibrary() {
  static const Library library = Open();
  return library;
}

}  // namespace

const HeddleCudaApi& CudaApi() {
  const Library& library = TheLibrary();
  if (library.api == nullptr) {
    throw Error(
        ErrorCode::kInvalidArgument,
        "device 'cuda' needs libheddle_cuda.so (npm run build:cuda), which cannot be opened: " + library.reason);
  }
  return *library.api;
}

int NumCudaDevices(std::string* reason) {
  const Library& library = TheLibrary();
  int32_t count = 0;
  std::string why = library.reason;
  if (library.api != nullptr && library.api->device_count(&count) != kHeddleCudaOk) {
    why = library.api->last_error();
    count = 0;
  }
  if (reason != nullptr) *reason = count > 0 ? "" : why.empty() ? "the driver shows no device" : why;
  return count;
}

void CheckCuda(HeddleCudaStatus status) {
  if (status == kHeddleCudaOk) return;
  const std::string message = CudaApi().last_error();
  switch (status) {
    case kHeddleCudaOutOfMemory:
      throw Error(ErrorCode::kInsufficientMemory, message);
    case kHeddleCudaTimeout:
      throw Error(ErrorCode::kCommTimeout, message);
    case kHeddleCudaUnavailable:
      throw Error(ErrorCode::kInvalidArgument, message);
    case kHeddleCudaInvalid:
      throw Error(ErrorCode::kInternal, "CUDA: " + message);
    default:
      throw Error(ErrorCode::kRankFailed, message);
  }
}

}  // namespace heddle
