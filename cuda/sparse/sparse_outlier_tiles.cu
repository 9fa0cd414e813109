#include <type_traits>

#include "quant/tile_launch.cuh"
#include "sparse/sparse_products.cuh"

namespace heddle::cuda {
namespace {

template <typename T>
using Kinds = Cheapest<SparseOutlierProducts<T, 16>, SparseOutlierProducts<T, 32>, SparseOutlierProducts<T, 64>,
                       SparseOutlierProducts<T, 128>>;

}  // namespace

int RowsOfSparseOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product, int most_rows) {
  return Kinds<__half>::Rows(stream, product, most_rows);  // either type takes as long
}

void LaunchSparseOutlierTiles(const HeddleCudaStream& stream, const TileProduct& product) {
  DispatchFloat(product.outliers.dtype, [&]<typename T>() {
    if constexpr (!std::is_same_v<T, float>) {
      Kinds<T>::LaunchWith(product.outliers.rows_of_group, stream, product);
    }
  });
}

}  // namespace heddle::cuda
