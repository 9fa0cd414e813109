// The one rule by which everything is sharded: sizes are cut into kNumReductionSlices slices, and a rank takes
// neighbouring slices. The slices do not depend on the number of ranks, so neither does any sum over them.
#pragma once

#include <cstdint>

#include "base/rounding.h"

namespace heddle {

// A row-parallel product is summed over this many slices of K in a balanced binary tree.
inline constexpr int kNumReductionSlices = 8;

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// The boundary before slice `slice` of `size` elements, cut in whole units as evenly as they allow. Slices may be
// empty when there are fewer units than slices.
constexpr int64_t SliceBoundary(int64_t size, int64_t unit, int slice) {
  const int64_t units = CeilDiv(size, unit);
  const int64_t boundary = units * slice / kNumReductionSlices * unit;
  return boundary < size ? boundary : size;
}

}  // namespace heddle
