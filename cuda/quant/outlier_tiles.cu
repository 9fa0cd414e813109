#include <type_traits>

#include "quant/tile_launch.cuh"

namespace heddle::cuda {

int64_t RowsOfOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product) {
  using T = __half;  // either type takes as long
  using Kinds = Cheapest<OutlierProducts<T, 16>, OutlierProducts<T, 32>, OutlierProducts<T, 64>,
                         OutlierProducts<T, 128>, OutlierProducts<T, 256>>;
  return Kinds::Rows(stream, product);
}

void LaunchOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product) {
  DispatchFloat(product.outliers.values.dtype, [&]<typename T>() {
    if constexpr (!std::is_same_v<T, float>) {
      switch (product.outliers.rows_of_group) {
        case 16:
          return LaunchTiles<OutlierProducts<T, 16>>(stream, product);
        case 32:
          return LaunchTiles<OutlierProducts<T, 32>>(stream, product);
        case 64:
          return LaunchTiles<OutlierProducts<T, 64>>(stream, product);
        case 128:
          return LaunchTiles<OutlierProducts<T, 128>>(stream, product);
        default:
          return LaunchTiles<OutlierProducts<T, 256>>(stream, product);
      }
    }
  });
}

}  // namespace heddle::cuda
