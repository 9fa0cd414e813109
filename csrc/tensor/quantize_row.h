// A row of a weight matrix as int8 with one scale: value = element * scale.
#pragma once

#include <cstdint>
#include <span>

#include "base/dtype.h"

namespace heddle {

bool AllFinite(std::span<const float> row);

// elements = row / scale, rounded half to even, where the scale makes the largest magnitude 127, or less where
// `scale_dtype`, a float dtype, has no such scale. Returns the scale, which is above zero; 1 for a row of zeros.
// REQUIRES: AllFinite(row).
float QuantizeRow(std::span<const float> row, DType scale_dtype, int8_t* elements);

}  // namespace heddle
