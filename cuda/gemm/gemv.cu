#include "gemm/gemv.h"

#include "gemm/gemv_launch.cuh"
#include "gemm/gemv_x.cuh"

namespace heddle::cuda {
namespace {

// Weights of x's own type.
template <typename Float>
struct DenseForm {
  using T = Float;
  using X = XSlabs<kChunkBytes, 16>;
  using Sums = GroupSums<T>;
  static constexpr int kMetadataUnits = 0;
  static constexpr bool kScaled = false;
  static constexpr bool kTensorRing = true;
};

}  // namespace

void Gemv(const HeddleCudaStream& stream, const HeddleCudaMatmul& op) {
  DispatchFloat(op.x.dtype, [&]<typename T>() { LaunchGemv<DenseForm<T>>(stream, op); });
}

void Gemv(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) {
  DispatchFloat(op.x.dtype, [&]<typename T>() { LaunchGemv<DenseForm<T>>(stream, op); });
}

}  // namespace heddle::cuda
