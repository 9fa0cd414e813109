#include "common/tensor_map.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <unordered_map>

#include "common/checks.h"
#include "common/error.h"

namespace heddle::cuda {
namespace {

using Encode = PFN_cuTensorMapEncodeTiled_v12000;

// Of the driver, which this library is not linked with.
Encode FindEncode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  HEDDLE_CUDA_CHECK(
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found));
  if (found != cudaDriverEntryPointSuccess)
    Fail(kHeddleCudaUnavailable, "the CUDA driver has no cuTensorMapEncodeTiled");
  return reinterpret_cast<Encode>(function);
}

CUtensorMapDataType TypeOf(HeddleCudaDType dtype) {
  switch (dtype) {
    case kHeddleCudaFloat32:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    case kHeddleCudaFloat16:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    case kHeddleCudaBFloat16:
      return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    case kHeddleCudaInt8:
      return CU_TENSOR_MAP_DATA_TYPE_UINT8;
  }
  Fail(kHeddleCudaInvalid, "a dtype that is none");
}

CUtensorMapSwizzle SwizzleOf(const TensorMapShape& shape) {
  const int64_t row_bytes = shape.box[0] * SizeOf(shape.dtype);
  if (row_bytes == 128) return CU_TENSOR_MAP_SWIZZLE_128B;
  return row_bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_NONE;
}

CUtensorMap Make(const TensorMapShape& shape) {
  static const Encode encode = FindEncode();
  constexpr std::array<uint32_t, 4> kElementStrides = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult result = encode(
      &map, TypeOf(shape.dtype), static_cast<uint32_t>(shape.rank), const_cast<void*>(shape.base), shape.size.data(),
      shape.stride_bytes.data(), shape.box.data(), kElementStrides.data(), CU_TENSOR_MAP_INTERLEAVE_NONE,
      SwizzleOf(shape), CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    Fail(kHeddleCudaFailed, "cuTensorMapEncodeTiled failed with error " + std::to_string(static_cast<int>(result)));
  }
  return map;
}

struct Hash {
  size_t operator()(const TensorMapShape& shape) const {
    uint64_t hash = reinterpret_cast<uintptr_t>(shape.base);
    for (const uint64_t part : {shape.size[0], shape.size[1], shape.size[2], shape.stride_bytes[0],
                                uint64_t{shape.box[0]} << 32 | shape.box[1]}) {
      hash = (hash ^ part) * 0x9e3779b97f4a7c15u;
    }
    return static_cast<size_t>(hash ^ hash >> 32);
  }
};

}  // namespace

CUtensorMap TensorMapOf(const TensorMapShape& shape) {
  // A map depends on nothing but its shape, so one that was made stays right. Queries bring new shapes without end.
  constexpr size_t kMostKept = 1024;
  thread_local std::unordered_map<TensorMapShape, CUtensorMap, Hash> kept;
  const auto found = kept.find(shape);
  if (found != kept.end()) return found->second;
  if (kept.size() >= kMostKept) kept.clear();
  return kept.emplace(shape, Make(shape)).first->second;
}

}  // namespace heddle::cuda
