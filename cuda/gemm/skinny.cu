#include "gemm/skinny.h"

#include <type_traits>

#include "gemm/skinny_launch.cuh"

namespace heddle::cuda {
namespace {

template <bool kGated>
void Launch16Bit(const HeddleCudaStream& stream, const SkinnyProduct& product) {
  DispatchFloat(product.x.dtype, [&]<typename T>() {
    if constexpr (!std::is_same_v<T, float>) LaunchSkinny<T, kGated>(stream, product);
  });
}

}  // namespace

bool CanSkinny(const HeddleCudaStream& stream, const HeddleCudaMatrix& x, const HeddleCudaMatrix& weight) {
  // Steps and rows are counted in 32 bits.
  return stream.properties.major == 9 && stream.properties.minor == 0 && x.dtype != kHeddleCudaFloat32 &&
         x.num_rows <= kMaxSkinnyRows && x.size <= (1 << 24) && weight.num_rows <= (1 << 30);
}

void SkinnyMatmul(const HeddleCudaStream& stream, const HeddleCudaMatmul& op) {
  Launch16Bit<false>(stream, {op.x, op.weight.values, nullptr, nullptr, op.bias, op.y, kHeddleCudaSilu});
}

void SkinnyGatedMatmul(const HeddleCudaStream& stream, const HeddleCudaGatedMatmul& op) {
  Launch16Bit<true>(stream, {op.x, op.gate_up.values, nullptr, nullptr, op.bias, op.y, op.activation});
}

}  // namespace heddle::cuda
