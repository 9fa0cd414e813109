#include <type_traits>

#include "quant/tile_launch.cuh"
#include "sparse/sparse_products.cuh"

namespace heddle::cuda {

void LaunchSparseConvertedTiles(const HeddleCudaStream& stream, const TileProduct& product) {
  DispatchFloat(product.x.dtype, [&]<typename T>() {
    if constexpr (!std::is_same_v<T, float>) {
      using Kinds = Cheapest<SparseConvertedProducts<T, 16>, SparseConvertedProducts<T, 32>,
                             SparseConvertedProducts<T, 64>, SparseConvertedProducts<T, 128>>;
      Kinds::Launch(stream, product);
    }
  });
}

}  // namespace heddle::cuda
