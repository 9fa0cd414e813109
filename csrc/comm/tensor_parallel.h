// A rank's place in its tensor-parallel group.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "tensor/sharding.h"

namespace heddle {

struct TensorParallel {
  int rank = 0;
  int size = 1;
  Communicator* communicator = nullptr;  // not owned; null only in plans, which never communicate

  // The neighbouring slices of this rank. Sizes that tp does not divide give uneven shards, never an error.
  Range Shard(int64_t total, int64_t unit) const {
    const int slices = kNumReductionSlices / size;
    return {SliceBoundary(total, unit, rank * slices), SliceBoundary(total, unit, (rank + 1) * slices)};
  }

  // The reduction slices inside this rank's shard, as columns relative to its begin: 8 / size + 1 boundaries.
  std::vector<int64_t> ShardSlices(int64_t total, int64_t unit) const;
};

}  // namespace heddle
