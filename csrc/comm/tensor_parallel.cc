#include "comm/tensor_parallel.h"

namespace heddle {

std::vector<int64_t> TensorParallel::ShardSlices(int64_t total, int64_t unit) const {
  const int slices = kNumReductionSlices / size;
  const int64_t begin = Shard(total, unit).begin;
  std::vector<int64_t> bounds;
  for (int i = 0; i <= slices; ++i) bounds.push_back(SliceBoundary(total, unit, rank * slices + i) - begin);
  return bounds;
}

}  // namespace heddle
