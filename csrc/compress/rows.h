// What becomes of one row of a matrix by 2:4 sparsity, which keeps two of every four neighbours.
//
// Masks have a bit a column, from the lowest of byte 0 on, with two set of every four: the bitmask of
// compressed-tensors. Any thread. REQUIRES for 2:4: as many columns as a multiple of four.
#pragma once

#include <cstdint>
#include <span>

#include "base/dtype.h"

namespace heddle {

constexpr int64_t MaskBytes(int64_t columns) { return (columns + 7) / 8; }

inline bool IsKept(const uint8_t* mask, int64_t column) { return (mask[column / 8] >> (column % 8) & 1) != 0; }

// Whether at least two of every four neighbours are zero.
bool IsTwoOfFour(std::span<const float> row);

// The mask of the two largest scores of every four; of equals, the first. A NaN counts as the smallest.
void TwoOfFourMask(std::span<const float> scores, uint8_t* mask);

// Zeros what the mask leaves out.
void ApplyMask(const uint8_t* mask, std::span<float> row);

}  // namespace heddle
