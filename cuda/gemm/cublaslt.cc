#include "gemm/cublaslt.h"

#include <string>

#include "common/shared_library.h"

namespace heddle::cuda {
namespace {

CublasLtLibrary Open() {
  SharedLibrary file("HEDDLE_CUBLASLT", {"libcublasLt.so.13", "libcublasLt.so.12"},
                     "products of many rows need cuBLASLt: install it with the CUDA toolkit, or the Python package "
                     "nvidia-cublas and let HEDDLE_CUBLASLT name its libcublasLt.so.13");
  CublasLtLibrary library;
  file.Find("cublasLtCreate", library.create);
  file.Find("cublasLtDestroy", library.destroy);
  file.Find("cublasLtGetStatusString", library.status_string);
  file.Find("cublasLtMatmul", library.matmul);
  file.Find("cublasLtMatmulAlgoGetHeuristic", library.heuristic);
  file.Find("cublasLtMatmulDescCreate", library.operation_create);
  file.Find("cublasLtMatmulDescDestroy", library.operation_destroy);
  file.Find("cublasLtMatmulDescSetAttribute", library.operation_set);
  file.Find("cublasLtMatrixLayoutCreate", library.layout_create);
  file.Find("cublasLtMatrixLayoutDestroy", library.layout_destroy);
  file.Find("cublasLtMatmulPreferenceCreate", library.preference_create);
  file.Find("cublasLtMatmulPreferenceDestroy", library.preference_destroy);
  file.Find("cublasLtMatmulPreferenceSetAttribute", library.preference_set);
  file.KeepOpen();  // as kernels of it may be in graphs
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
