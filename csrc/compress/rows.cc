#include "compress/rows.h"

#include <algorithm>
#include <array>
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

float Rounded(DType dtype, float value) {
  uint32_t memory = 0;
  StoreFloat(dtype, &memory, 0, value);
  return LoadFloat(dtype, &memory, 0);
}

bool AllFinite(std::span<const float> row) {
  return std::all_of(row.begin(), row.end(), [](float value) { return std::isfinite(value); });
}

float QuantizeRow(std::span<const float> row, DType scale_dtype, int8_t* out) {
  float largest = 0;
  for (const float value : row) largest = std::max(largest, std::fabs(value));
  if (largest == 0) {
    std::fill_n(out, row.size(), int8_t{0});
    return 1;
  }
  // Quantised with the scale as it is stored: readers multiply by no other.
  float scale = std::max(Rounded(scale_dtype, largest / 127), SmallestScale(scale_dtype));
  // A scale of few bits may be rounded down so far that the largest values would be cut off.
  if (largest / scale > 127.5f) scale = NextLarger(scale_dtype, scale);
  for (size_t i = 0; i < row.size(); ++i) {
    out[i] = static_cast<int8_t>(std::clamp(std::nearbyint(row[i] / scale), -127.0f, 127.0f));
  }
  return scale;
}

bool IsTwoOfFour(std::span<const float> row) {
  for (size_t i = 0; i + 4 <= row.size(); i += 4) {
    if ((row[i] == 0) + (row[i + 1] == 0) + (row[i + 2] == 0) + (row[i + 3] == 0) < 2) return false;
  }
  return row.size() % 4 == 0;
}

void TwoOfFourMask(std::span<const float> scores, uint8_t* mask) {
  std::fill_n(mask, MaskBytes(static_cast<int64_t>(scores.size())), uint8_t{0});
  for (size_t group = 0; group < scores.size(); group += 4) {
    std::array<float, 4> score;
    for (size_t i = 0; i < 4; ++i) score[i] = std::isnan(scores[group + i]) ? -INFINITY : scores[group + i];
    // Whether one comes before another.
    const int ab = score[0] >= score[1];
    const int ac = score[0] >= score[2];
    const int ad = score[0] >= score[3];
    const int bc = score[1] >= score[2];
    const int bd = score[1] >= score[3];
    const int cd = score[2] >= score[3];
    const int kept = (ab + ac + ad >= 2) | (1 - ab + bc + bd >= 2) << 1 | (2 - ac - bc + cd >= 2) << 2 |
                     (3 - ad - bd - cd >= 2) << 3;
    mask[group / 8] = static_cast<uint8_t>(mask[group / 8] | kept << (group % 8));
  }
}

void ApplyMask(const uint8_t* mask, std::span<float> row) {
  for (size_t i = 0; i < row.size(); ++i) {
    if (!IsKept(mask, static_cast<int64_t>(i))) row[i] = 0;
  }
}

}  // namespace heddle
