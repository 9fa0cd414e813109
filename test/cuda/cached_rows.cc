#include "cached_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace heddle::test {
namespace {

constexpr int kTileTokens = 16;

// Where a row's elements and scale lie in an int8 cache.
struct RowPlace {
  RowPlace(size_t row, int head_dim) {
    const auto size = static_cast<size_t>(head_dim);
    const size_t tile = row / kTileTokens * kTileTokens * (size + sizeof(float));
    elements = tile + row % kTileTokens * size;
    scale = tile + kTileTokens * size + row % kTileTokens * sizeof(float);
  }

  size_t elements;
  size_t scale;
};

float RoundToInt8(const float* row, int head_dim, int8_t* integers) {
  float magnitude = 0;
  bool is_finite = true;
  for (int i = 0; i < head_dim; ++i) {
    magnitude = std::max(magnitude, std::abs(row[i]));
    is_finite = is_finite && std::isfinite(row[i]);
  }
  const float scale = !is_finite ? NAN : magnitude < 1e-30f ? 0 : magnitude / 127;
  for (int i = 0; i < head_dim; ++i) {
    integers[i] = static_cast<int8_t>(scale > 0 ? std::nearbyint(row[i] * (1 / scale)) : 0);
  }
  return scale;
}

}  // namespace

Int8Rows ToInt8(const std::vector<float>& rows, int head_dim) {
  Int8Rows rounded(static_cast<int64_t>(rows.size()) / head_dim, head_dim);
  for (size_t row = 0; row < rounded.scales.size(); ++row) {
    const size_t first = row * static_cast<size_t>(head_dim);
    rounded.scales[row] = RoundToInt8(rows.data() + first, head_dim, rounded.integers.data() + first);
  }
  return rounded;
}

Int8Rows FromInt8Cache(const std::vector<uint8_t>& bytes, int head_dim) {
  Int8Rows rows(static_cast<int64_t>(bytes.size()) / (head_dim + static_cast<int>(sizeof(float))), head_dim);
  for (size_t row = 0; row < rows.scales.size(); ++row) {
    const RowPlace place(row, head_dim);
    const auto size = static_cast<size_t>(head_dim);
    std::memcpy(rows.integers.data() + row * size, bytes.data() + place.elements, size);
    std::memcpy(&rows.scales[row], bytes.data() + place.scale, sizeof(float));
  }
  return rows;
}

std::vector<float> RoundedRows(HeddleCudaDType dtype, std::vector<float> rows, int head_dim) {
  if (dtype != kHeddleCudaInt8) return Rounded(dtype, std::move(rows));
  const Int8Rows rounded = ToInt8(rows, head_dim);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i] = rounded.integers[i] * rounded.scales[i / static_cast<size_t>(head_dim)];
  }
  return rows;
}

DeviceArray CachedRows(TestStream& stream, HeddleCudaDType dtype, const std::vector<float>& rows, int head_dim) {
  if (dtype != kHeddleCudaInt8) return DeviceArray::From(stream, dtype, rows);
  const Int8Rows rounded = ToInt8(rows, head_dim);
  const auto size = static_cast<size_t>(head_dim);
  // Whatever an unwritten slot holds, its elements are not zeros.
  std::vector<uint8_t> bytes(rounded.scales.size() * (size + sizeof(float)), 0x7f);
  for (size_t row = 0; row < rounded.scales.size(); ++row) {
    const RowPlace place(row, head_dim);
    std::memcpy(bytes.data() + place.scale, &rounded.scales[row], sizeof(float));
    if (std::isnan(rounded.scales[row])) continue;
    std::memcpy(bytes.data() + place.elements, rounded.integers.data() + row * size, size);
  }
  return DeviceArray::Bytes(stream, bytes);
}

}  // namespace heddle::test
