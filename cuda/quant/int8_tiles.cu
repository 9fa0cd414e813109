#include "quant/tile_launch.cuh"

namespace heddle::cuda {

void LaunchInt8Tiles(const HeddleCudaStream& stream, const TileProduct& product) {
  using Kinds = Cheapest<Int8Products<64>, Int8Products<128>, Int8Products<256>>;
  Kinds::Launch(stream, product);
}

}  // namespace heddle::cuda
