// How outliers of x lie in memory between QuantizeRowsButOutliers and the products that take them.
#pragma once

#include "common/rounding.h"

namespace heddle::cuda {

// Columns of a panel; so many elements wgmma sums over.
inline constexpr int kPanelColumns = 16;

// A panel of a group of `rows` rows: T where an element is an outlier, else zero, [2, rows, 8], the first 8 columns and
// the others; then for each column a byte, which of its step's it is. Where a step's last panel has columns to spare,
// these are zeros of its first column.
constexpr int PanelValueBytes(int rows) { return rows * kPanelColumns * 2; }
constexpr int PanelBytes(int rows) { return PanelValueBytes(rows) + kPanelColumns; }
// Where those of a group's step begin, among as many for each step as it has columns for; those that it has are
// written.
constexpr int64_t PanelOffset(int64_t group, int64_t num_steps, int64_t step, int columns_of_step, int rows) {
  return (group * num_steps + step) * (columns_of_step / kPanelColumns) * PanelBytes(rows);
}
// Where among these bytes that of a column lies: the four that a thread multiplies are one word.
constexpr int PlaceOfColumn(int column) { return column % 8 / 2 * 4 + column / 8 * 2 + column % 2; }

// How many panels each step of a group has are bytes, those of groups so many apart, that 16 may be read at once.
// Beyond the last step they are not written.
constexpr int64_t PanelCountStride(int64_t num_steps) { return RoundUp(num_steps, 16); }

}  // namespace heddle::cuda
