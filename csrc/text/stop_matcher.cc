#include "text/stop_matcher.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"

namespace heddle {

StopMatcher::Pattern::Pattern(const std::string& stop) : text(stop), border(stop.size()) {
  for (size_t i = 1; i < text.size(); ++i) border[i] = Extend(border[i - 1], text[i]);
}

uint32_t StopMatcher::Pattern::Extend(uint32_t length, char byte) const {
  while (length > 0 && text[length] != byte) length = border[length - 1];
  return text[length] == byte ? length + 1 : length;
}

StopMatcher::StopMatcher(std::span<const std::string> stop) {
  for (const std::string& text : stop) {
    HEDDLE_CHECK(!text.empty() && FindInvalidUtf8(text) == text.size(), "stop string");
    patterns_.emplace_back(text);
  }
}

std::optional<StopMatcher::Match> StopMatcher::Feed(std::string_view piece, bool report) {
  for (size_t i = 0; i < piece.size(); ++i) {
    std::optional<Match> match;
    for (size_t p = 0; p < patterns_.size(); ++p) {
      Pattern& pattern = patterns_[p];
      pattern.matched = pattern.Extend(pattern.matched, piece[i]);
      if (pattern.matched < pattern.text.size()) continue;
      if (report && !match) match = Match{static_cast<int>(p), i + 1};
      pattern.matched = pattern.border.back();
    }
    if (match) return match;
  }
  return std::nullopt;
}

size_t StopMatcher::partial_size() const {
  uint32_t size = 0;
  for (const Pattern& pattern : patterns_) size = std::max(size, pattern.matched);
  return size;
}

}  // namespace heddle
