// Keys, or values, of a cache: rows [.., head_dim] in order of blocks, heads and tokens. In an int8 cache a row that
// holds a NaN has the scale NaN.
#pragma once

#include "cuda_testing.h"

namespace heddle::test {

inline constexpr HeddleCudaDType kAllCacheDTypes[4] = {kHeddleCudaFloat32, kHeddleCudaFloat16, kHeddleCudaBFloat16,
                                                       kHeddleCudaInt8};

// What the cache holds of `rows`, as rotate_and_store rounds them.
std::vector<float> RoundedRows(HeddleCudaDType dtype, std::vector<float> rows, int head_dim);

// `rows` in a cache's memory, of which there are whole blocks.
DeviceArray CachedRows(TestStream& stream, HeddleCudaDType dtype, const std::vector<float>& rows, int head_dim);

// Rows of an int8 cache's memory, [num_rows, head_dim]: `integers` as they are stored, and a scale for each row.
struct Int8Rows {
  explicit Int8Rows(int64_t num_rows, int head_dim)
      : integers(static_cast<size_t>(num_rows * head_dim)), scales(static_cast<size_t>(num_rows)) {}

  std::vector<int8_t> integers;
  std::vector<float> scales;
};
Int8Rows FromInt8Cache(const std::vector<uint8_t>& bytes, int head_dim);
Int8Rows ToInt8(const std::vector<float>& rows, int head_dim);

}  // namespace heddle::test
