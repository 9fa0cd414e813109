// cuBLASLt, opened at run time, so that a machine without it lacks only products of many rows.
#pragma once

#include <cublasLt.h>

#include <memory>
#include <type_traits>

#include "common/error.h"

namespace heddle::cuda {

struct CublasLtLibrary {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtGetStatusString) status_string = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulDescCreate) operation_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) operation_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) operation_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
};

// Opens the file that HEDDLE_CUBLASLT names, else libcublasLt.so.13, else .12, at the first call. Fails with
// kHeddleCudaUnavailable when there is none; a later call tries again. Any thread may call it.
const CublasLtLibrary& CublasLt();

// Fails unless `status` is success: out of memory, sticky or failed. `what` names the call.
void CheckCublasLt(cublasStatus_t status, const char* what);

// Owners of what the library hands out.
template <auto kDestroy>
struct CublasLtDestroyer {
  template <typename T>
  void operator()(T* object) const noexcept {
    (CublasLt().*kDestroy)(object);
  }
};
template <typename Pointer, auto kDestroy>
using CublasLtOwner = std::unique_ptr<std::remove_pointer_t<Pointer>, CublasLtDestroyer<kDestroy>>;
using CublasLtHandle = CublasLtOwner<cublasLtHandle_t, &CublasLtLibrary::destroy>;
using CublasLtOperation = CublasLtOwner<cublasLtMatmulDesc_t, &CublasLtLibrary::operation_destroy>;
using CublasLtLayout = CublasLtOwner<cublasLtMatrixLayout_t, &CublasLtLibrary::layout_destroy>;
using CublasLtPreference = CublasLtOwner<cublasLtMatmulPreference_t, &CublasLtLibrary::preference_destroy>;

}  // namespace heddle::cuda
