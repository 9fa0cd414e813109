#include "quant/tile_launch.cuh"
#include "sparse/sparse_products.cuh"

namespace heddle::cuda {

void LaunchSparseInt8Tiles(const HeddleCudaStream& stream, const TileProduct& product) {
  using Kinds =
      Cheapest<SparseInt8Products<16>, SparseInt8Products<32>, SparseInt8Products<64>, SparseInt8Products<128>>;
  Kinds::Launch(stream, product);
}

}  // namespace heddle::cuda
