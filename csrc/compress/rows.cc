#include "compress/rows.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace heddle {
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
