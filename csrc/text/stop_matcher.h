// Finds the first of several stop strings in a text that comes in pieces, looking at each byte once.
//
// First is the one that ends earliest, and of those that end together the one listed first. So the result does not
// depend on how the text is cut into pieces. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace heddle {

class StopMatcher {
 public:
  struct Match {
    int index;   // of the stop string
    size_t end;  // in the piece: just after it; its beginning may lie in earlier pieces
  };

  // REQUIRES: every stop string is well-formed UTF-8 and not empty.
  explicit StopMatcher(std::span<const std::string> stop);

  // Looks at the next piece. A stop string that ends in a piece with `report` false is passed over, but one that only
  // begins there is found later. Not called again after a match.
  std::optional<Match> Feed(std::string_view piece, bool report);

  // Bytes at the end of all text so far that are the beginning of a stop string: the most for any of them.
  size_t partial_size() const;

 private:
  // The automaton of Knuth, Morris and Pratt.
  struct Pattern {
    explicit Pattern(const std::string& stop);
    // The longest prefix that is a suffix of what had the prefix of `length` as its longest, followed by `byte`.
    uint32_t Extend(uint32_t length, char byte) const;

    std::string text;
    std::vector<uint32_t> border;  // border[i]: longest proper prefix of text[0..i] that is a suffix of it, too
    uint32_t matched = 0;          // longest prefix, short of the whole, that is a suffix of the text so far
  };

  std::vector<Pattern> patterns_;
};

}  // namespace heddle
