#include <type_traits>

#include "quant/tile_launch.cuh"

namespace heddle::cuda {

void LaunchConvertedTiles(const HeddleCudaStream& stream, const TileProduct& product) {
  DispatchFloat(product.x.dtype, [&]<typename T>() {
    if constexpr (!std::is_same_v<T, float>) {
      using Kinds = Cheapest<ConvertedProducts<T, 16>, ConvertedProducts<T, 32>, ConvertedProducts<T, 64>,
                             ConvertedProducts<T, 128>, ConvertedProducts<T, 256>>;
      Kinds::Launch(stream, product);
    }
  });
}

}  // namespace heddle::cuda
