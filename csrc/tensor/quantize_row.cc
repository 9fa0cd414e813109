#include "tensor/quantize_row.h"

#include <algorithm>
#include <cmath>

namespace heddle {
namespace {

// The next larger value of the dtype. REQUIRES: positive, and not the largest.
float NextLarger(DType dtype, float value) {
  uint32_t memory = 0;
  StoreFloat(dtype, &memory, 0, value);
  ++memory;
  return LoadFloat(dtype, &memory, 0);
}

// The smallest positive value of the dtype, which a scale may be rounded to instead of zero.
float SmallestScale(DType dtype) { return dtype == DType::kFloat16 ? std::ldexp(1.0f, -24) : std::ldexp(1.0f, -126); }

}  // namespace

bool AllFinite(std::span<const float> row) {
  return std::all_of(row.begin(), row.end(), [](float value) { return std::isfinite(value); });
}

float QuantizeRow(std::span<const float> row, DType scale_dtype, int8_t* elements) {
  float largest = 0;
  for (const float value : row) largest = std::max(largest, std::fabs(value));
  if (largest == 0) {
    std::fill_n(elements, row.size(), int8_t{0});
    return 1;
  }
  // Quantised with the scale as it is stored: readers multiply by no other.
  float scale = std::max(Rounded(scale_dtype, largest / 127), SmallestScale(scale_dtype));
  // A scale of few bits may be rounded down so far that the largest values would be cut off.
  if (largest / scale > 127.5f) scale = NextLarger(scale_dtype, scale);
  for (size_t i = 0; i < row.size(); ++i) {
    elements[i] = static_cast<int8_t>(std::clamp(std::nearbyint(row[i] / scale), -127.0f, 127.0f));
  }
  return scale;
}

}  // namespace heddle
