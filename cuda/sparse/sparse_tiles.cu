#include <type_traits>

#include "quant/tile_launch.cuh"
#include "sparse/sparse_products.cuh"

namespace heddle::cuda {

void LaunchSparseTiles(const HeddleCudaStream& stream, const TileProduct& product) {
  DispatchFloat(product.x.dtype, [&]<typename T>() {
    if constexpr (!std::is_same_v<T, float>) {
      using Kinds =
          Cheapest<SparseProducts<T, 16>, SparseProducts<T, 32>, SparseProducts<T, 64>, SparseProducts<T, 128>>;
      Kinds::Launch(stream, product);
    }
  });
}

}  // namespace heddle::cuda
