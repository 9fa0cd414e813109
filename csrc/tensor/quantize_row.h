// A row of a weight matrix as int8 with one scale: value = element * scale.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

namespace heddle {

// elements[0..size) = row / scale, rounded to nearest even, where the largest magnitude becomes 127; returns the scale.
// A row of zeros has scale 1. Not a number, and no elements, when a value is not finite.
inline float QuantizeRow(const float* row, int64_t size, int8_t* elements) {
  float largest = 0;
  bool finite = true;
  for (int64_t i = 0; i < size; ++i) {
    finite = finite && std::isfinite(row[i]);
    largest = std::fmax(largest, std::fabs(row[i]));
  }
  if (!finite) return std::nanf("");
  // Below the normal numbers a scale has too few bits, or none.
  const float scale = largest > 0 ? std::fmax(largest / 127.0f, FLT_MIN) : 1.0f;
  for (int64_t i = 0; i < size; ++i) {
    elements[i] = static_cast<int8_t>(std::nearbyint(row[i] / scale));
  }
  return scale;
}

}  // namespace heddle
