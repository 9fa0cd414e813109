#include "gemm/cublaslt.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace heddle::cuda {
namespace {

struct Closer {
  void operator()(void* file) const noexcept { dlclose(file); }
};
using File = std::unique_ptr<void, Closer>;

File OpenFile() {
  std::vector<std::string> names = {"libcublasLt.so.13", "libcublasLt.so.12"};
  const char* const chosen = std::getenv("HEDDLE_CUBLASLT");
  if (chosen != nullptr && *chosen != '\0') names = {chosen};
  std::string reasons;
  for (const std::string& name : names) {
    File file(dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL));
    if (file != nullptr) return file;
    const char* const reason = dlerror();
    reasons += (reasons.empty() ? "" : "; ") + (reason != nullptr ? std::string(reason) : name);
  }
  Fail(kHeddleCudaUnavailable,
       "products of many rows need cuBLASLt: install it with the CUDA toolkit, or the Python package nvidia-cublas and "
       "let HEDDLE_CUBLASLT name its libcublasLt.so.13 (" +
           reasons + ")");
}

template <typename Function>
void Find(void* file, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(file, name));
  if (function == nullptr) Fail(kHeddleCudaUnavailable, std::string("the cuBLASLt library has no function ") + name);
}

CublasLtLibrary Open() {
  File file = OpenFile();
  CublasLtLibrary library;
  Find(file.get(), "cublasLtCreate", library.create);
  Find(file.get(), "cublasLtDestroy", library.destroy);
  Find(file.get(), "cublasLtGetStatusString", library.status_string);
  Find(file.get(), "cublasLtMatmul", library.matmul);
  Find(file.get(), "cublasLtMatmulAlgoGetHeuristic", library.heuristic);
  Find(file.get(), "cublasLtMatmulDescCreate", library.operation_create);
  Find(file.get(), "cublasLtMatmulDescDestroy", library.operation_destroy);
  Find(file.get(), "cublasLtMatmulDescSetAttribute", library.operation_set);
  Find(file.get(), "cublasLtMatrixLayoutCreate", library.layout_create);
  Find(file.get(), "cublasLtMatrixLayoutDestroy", library.layout_destroy);
  Find(file.get(), "cublasLtMatmulPreferenceCreate", library.preference_create);
  Find(file.get(), "cublasLtMatmulPreferenceDestroy", library.preference_destroy);
  Find(file.get(), "cublasLtMatmulPreferenceSetAttribute", library.preference_set);
  // Stays open until the process ends, as kernels of it may be in graphs.
  static_cast<void>(file.release());
  return library;
}

}  // namespace

const CublasLtLibrary& CublasLt() {
  static const CublasLtLibrary library = Open();
  return library;
}

void CheckCublasLt(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  Fail(StatusOfLibraryFailure(status == CUBLAS_STATUS_ALLOC_FAILED ? kHeddleCudaOutOfMemory : kHeddleCudaFailed),
       std::string(what) + " failed: " + CublasLt().status_string(status));
}

}  // namespace heddle::cuda
