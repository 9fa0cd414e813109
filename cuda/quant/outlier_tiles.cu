#include <algorithm>
#include <type_traits>

#include "quant/tile_launch.cuh"

namespace heddle::cuda {
namespace {

template <typename T>
using Kinds = Cheapest<OutlierProducts<T, 16>, OutlierProducts<T, 32>, OutlierProducts<T, 64>, OutlierProducts<T, 128>,
                       OutlierProducts<T, 256>>;

// Above, tiles of 256 rows take less time, although they multiply outliers after everything else. As in prompts; the
// model of times knows sequences that decode.
constexpr int64_t kMostRowsOfSmallTiles = 512;

}  // namespace

int RowsOfOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product, int most_rows) {
  if (product.y.num_rows > kMostRowsOfSmallTiles && most_rows >= 256) return 256;
  return Kinds<__half>::Rows(stream, product, std::min(most_rows, 128));  // either type takes as long
}

void LaunchOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product) {
  DispatchFloat(product.outliers.dtype, [&]<typename T>() {
    if constexpr (!std::is_same_v<T, float>) {
      Kinds<T>::LaunchWith(product.outliers.rows_of_group, stream, product);
    }
  });
}

}  // namespace heddle::cuda
