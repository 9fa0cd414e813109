// Few rows of int8 x by int8 weights, on the kernel that streams weights for few rows of T.
#include "gemm/skinny_launch.cuh"
#include "quant/tile_product.h"

namespace heddle::cuda {

void LaunchInt8Skinny(const HeddleCudaStream& stream, const TileProduct& product) {
  const SkinnyProduct skinny = {
      product.x, product.weight.values, product.row_scales, product.weight.scales, product.bias,
      product.y, product.activation};
  product.gated ? LaunchSkinny<int8_t, true>(stream, skinny) : LaunchSkinny<int8_t, false>(stream, skinny);
}

}  // namespace heddle::cuda
