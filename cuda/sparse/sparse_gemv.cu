#include "sparse/sparse_gemv.h"

#include "gemm/gemv_launch.cuh"
#include "gemm/gemv_x.cuh"
#include "sparse/sparse_sums.cuh"

namespace heddle::cuda {
namespace {

template <typename Float>
struct SparseForm {
  using T = Float;
  using X = XSlabs<2 * kChunkBytes, 16>;
  using Sums = SparseSums<T>;
  static constexpr int kMetadataUnits = 1;
  static constexpr bool kScaled = false;
  static constexpr bool kTensorRing = true;
};

template <typename Op>
void LaunchSparseGemv(const HeddleCudaStream& stream, const Op& op) {
  if (op.x.dtype == kHeddleCudaFloat16) return LaunchGemv<SparseForm<__half>>(stream, op);
  LaunchGemv<SparseForm<__nv_bfloat16>>(stream, op);
}

}  // namespace

void SparseGemv(const HeddleCudaStream& stream, const HeddleCudaMatmul& op) { LaunchSparseGemv(stream, op); }
void SparseGemv(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) { LaunchSparseGemv(stream, op); }

}  // namespace heddle::cuda
