#include <type_traits>

#include "quant/tile_launch.cuh"

namespace heddle::cuda {

// Above, tiles of 256 rows take less time, although they multiply outliers after everything else. As in prompts; the
// model of times knows sequences that decode.
constexpr int64_t kMostRowsOfSmallTiles = 512;

int RowsOfOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product, int most_rows) {
  using T = __half;  // either type takes as long
  if (product.y.num_rows > kMostRowsOfSmallTiles && most_rows >= 256) return 256;
  using Kinds =
      Cheapest<OutlierProducts<T, 16>, OutlierProducts<T, 32>, OutlierProducts<T, 64>, OutlierProducts<T, 128>>;
  return Kinds::Rows(stream, product, most_rows);
}

void LaunchOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product) {
  DispatchFloat(product.outliers.dtype, [&]<typename T>() {
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
