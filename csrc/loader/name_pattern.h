// A regular expression over the names of modules, in the part of Python's syntax that checkpoints use: characters and
// their escapes, . \d \w \s and their opposites, [sets], ^ $, |, groups (also (?:), (?=) and (?!)), and the repetitions
// * + ? {m} {m,} {m,n}, lazy or not. Anything else is refused.
//
// No pattern takes long, whatever it repeats: positions in the name are followed as a set, and steps are counted.
//
// Immutable, so thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace heddle {

class NamePattern {
 public:
  // `where` stands before messages, e.g. "config.json: quantization_config.ignore". Fails with kUnsupportedModel.
  NamePattern(std::string pattern, std::string where);

  // Whether the pattern matches from the name's first character on, though not necessarily to its last, as Python's
  // re.match does. Fails with kUnsupportedModel when it takes too many steps.
  bool Matches(std::string_view name) const;

 private:
  std::string pattern_;
  std::string where_;
};

}  // namespace heddle
