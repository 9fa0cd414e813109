#include <type_traits>

#include "quant/tile_launch.cuh"
#include "sparse/sparse_products.cuh"

namespace heddle::cuda {

int RowsOfSparseOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product, int most_rows) {
  using T = __half;  // either type takes as long
  using Kinds = Cheapest<SparseOutlierProducts<T, 16>, SparseOutlierProducts<T, 32>, SparseOutlierProducts<T, 64>,
                         SparseOutlierProducts<T, 128>>;
  return Kinds::Rows(stream, product, most_rows);
}

void LaunchSparseOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product) {
  DispatchFloat(product.outliers.dtype, [&]<typename T>() {
    if constexpr (!std::is_same_v<T, float>) {
      switch (product.outliers.rows_of_group) {
        case 16:
          return LaunchTiles<SparseOutlierProducts<T, 16>>(stream, product);
        case 32:
          return LaunchTiles<SparseOutlierProducts<T, 32>>(stream, product);
        case 64:
          return LaunchTiles<SparseOutlierProducts<T, 64>>(stream, product);
        default:
          return LaunchTiles<SparseOutlierProducts<T, 128>>(stream, product);
      }
    }
  });
}

}  // namespace heddle::cuda
