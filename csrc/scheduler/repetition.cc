#include "scheduler/repetition.h"

#include <algorithm>
#include <vector>

namespace heddle {

bool HasRepetition(std::span<const int32_t> generated, const RepetitionDetection& detection) {
  const int64_t length = static_cast<int64_t>(generated.size());
  const int64_t count = detection.min_count;
  if (detection.max_pattern_size <= 0 || count < 2) return false;
  const int64_t max_size = std::min<int64_t>(detection.max_pattern_size, length / count);

  // The last size * count tokens repeat a pattern of `size` exactly when, read backwards, they agree with themselves
  // shifted by `size` for size * (count - 1) tokens. agreement[size] is that length, for each size in turn by the
  // Z-algorithm: [left, right) is the agreement known so far that reaches farthest.
  const int64_t window = max_size * count;
  const auto token = [&](int64_t i) { return generated[static_cast<size_t>(length - 1 - i)]; };
  std::vector<int64_t> agreement(static_cast<size_t>(max_size) + 1);
  int64_t left = 0;
  int64_t right = 0;
  for (int64_t size = 1; size <= max_size; ++size) {
    int64_t& agreed = agreement[static_cast<size_t>(size)];
    if (size < right) agreed = std::min(right - size, agreement[static_cast<size_t>(size - left)]);
    while (size + agreed < window && token(agreed) == token(size + agreed)) ++agreed;
    if (size + agreed > right) {
      left = size;
      right = size + agreed;
    }
    if (size >= detection.min_pattern_size && agreed >= size * (count - 1)) return true;
  }
  return false;
}

}  // namespace heddle
