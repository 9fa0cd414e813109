#include "loader/name_pattern.h"

#include <algorithm>
#include <bitset>
#include <charconv>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/quote.h"

namespace heddle {
namespace {

constexpr size_t kMaxPatternBytes = 1024;
constexpr int kMaxDepth = 16;     // of groups
constexpr int kMaxSteps = 5'000;  // a repeated character takes one for each of the name's
constexpr int kMaxRepetitions = 1000;
constexpr int kUnbounded = -1;

// Element i: whether a match can have come as far as the name's character i.
using Positions = std::vector<bool>;
using CharacterSet = std::bitset<256>;

bool Any(const Positions& positions) { return std::find(positions.begin(), positions.end(), true) != positions.end(); }

// Moves what is in `from` and not in `to` there. Returns what was moved.
Positions Merge(const Positions& from, Positions& to) {
  Positions added(from.size());
  for (size_t i = 0; i < from.size(); ++i) {
    added[i] = from[i] && !to[i];
    if (added[i]) to[i] = true;
  }
  return added;
}

CharacterSet Range(char first, char last) {
  CharacterSet set;
  for (int c = static_cast<uint8_t>(first); c <= static_cast<uint8_t>(last); ++c) set.set(static_cast<size_t>(c));
  return set;
}

CharacterSet Digits() { return Range('0', '9'); }
CharacterSet Spaces() { return Range(' ', ' ') | Range('\t', '\r'); }
CharacterSet WordCharacters() { return Digits() | Range('a', 'z') | Range('A', 'Z') | Range('_', '_'); }

// Of \d, \w, \s and their opposites; nullopt for another letter.
std::optional<CharacterSet> ClassOf(char letter) {
  switch (letter) {
    case 'd':
      return Digits();
    case 'w':
      return WordCharacters();
    case 's':
      return Spaces();
    case 'D':
      return ~Digits();
    case 'W':
      return ~WordCharacters();
    case 'S':
      return ~Spaces();
    default:
      return std::nullopt;
  }
}

// Reads the pattern and follows the name at the same time; a repeated part is read again each time.
class Matcher {
 public:
  Matcher(std::string_view pattern, const std::string& where, std::string_view name)
      : pattern_(pattern), where_(where), name_(name) {}

  bool Run() {
    if (pattern_.size() > kMaxPatternBytes) Fail("it is longer than " + std::to_string(kMaxPatternBytes) + " bytes");
    Positions start(name_.size() + 1);
    start[0] = true;
    const bool found = Any(Alternatives(start));
    if (!AtEnd()) Fail("a ) without its (");
    return found;
  }

 private:
  [[noreturn]] void Fail(const std::string& reason) const {
    throw Error(ErrorCode::kUnsupportedModel, where_ + ": the pattern " + Quote(pattern_) +
                                                  " is not supported: " + reason + " at byte " + std::to_string(at_));
  }

  bool AtEnd() const { return at_ == pattern_.size(); }
  char Current() const { return AtEnd() ? '\0' : pattern_[at_]; }

  bool Consume(std::string_view text) {
    if (pattern_.substr(at_, text.size()) != text) return false;
    at_ += text.size();
    return true;
  }

  char Take() {
    if (AtEnd()) Fail("it ends too early");
    return pattern_[at_++];
  }

  Positions Alternatives(const Positions& from) {
    if (++depth_ > kMaxDepth) Fail("groups are nested too deep");
    Positions reached = Sequence(from);
    while (Consume("|")) Merge(Sequence(from), reached);
    --depth_;
    return reached;
  }

  Positions Sequence(const Positions& from) {
    Positions reached = from;
    while (!AtEnd() && Current() != '|' && Current() != ')') reached = Item(reached);
    return reached;
  }

  // An atom and its repetition.
  Positions Item(const Positions& from) {
    const size_t begin = at_;
    Positions current = Atom(from);
    int min = 1;
    int max = 1;
    if (!ReadRepetition(min, max)) return current;
    const size_t end = at_;
    Positions reached(from.size());
    if (min == 0) reached = from;
    for (int count = 1; max == kUnbounded || count <= max; ++count) {
      if (count > 1) {
        at_ = begin;
        current = Atom(current);
      }
      // Where a match has been before it need not go on from again.
      if (count >= min) current = Merge(current, reached);
      if (!Any(current)) break;
    }
    at_ = end;
    return reached;
  }

  bool ReadRepetition(int& min, int& max) {
    if (Consume("*")) {
      min = 0;
      max = kUnbounded;
    } else if (Consume("+")) {
      max = kUnbounded;
    } else if (Consume("?")) {
      min = 0;
    } else if (Consume("{")) {
      min = Number();
      max = min;
      if (Consume(",")) max = Current() == '}' ? kUnbounded : Number();
      if (!Consume("}") || (max != kUnbounded && max < min)) Fail("a malformed {m,n}");
    } else {
      return false;
    }
    Consume("?");  // lazy: which match is found makes no difference to whether there is one
    return true;
  }

  int Number() {
    int number = 0;
    const char* text = pattern_.data() + at_;
    const auto [end, error] = std::from_chars(text, pattern_.data() + pattern_.size(), number);
    if (error != std::errc() || number < 0 || number > kMaxRepetitions) Fail("a malformed {m,n}");
    at_ += static_cast<size_t>(end - text);
    return number;
  }

  Positions Atom(const Positions& from) {
    if (++steps_ > kMaxSteps) Fail("it takes too many steps on " + Quote(name_));
    if (Consume("^")) return Only(from, 0);
    if (Consume("$")) return Only(from, name_.size());
    if (Consume("(?=")) return LookAhead(from, true);
    if (Consume("(?!")) return LookAhead(from, false);
    if (Consume("(?:") || (pattern_.substr(at_, 2) != "(?" && Consume("("))) {
      Positions reached = Alternatives(from);
      if (!Consume(")")) Fail("a ( without its )");
      return reached;
    }
    return Step(from, Characters());
  }

  static Positions Only(const Positions& from, size_t position) {
    Positions reached(from.size());
    reached[position] = from[position];
    return reached;
  }

  // Keeps positions from which the group's match is `wanted`.
  Positions LookAhead(const Positions& from, bool wanted) {
    const size_t begin = at_;
    Alternatives(Positions(from.size()));
    const size_t end = at_;
    Positions reached(from.size());
    for (size_t i = 0; i < from.size(); ++i) {
      if (!from[i]) continue;
      at_ = begin;
      reached[i] = Any(Alternatives(Only(from, i))) == wanted;
    }
    at_ = end;
    if (!Consume(")")) Fail("a ( without its )");
    return reached;
  }

  Positions Step(const Positions& from, const CharacterSet& set) const {
    Positions reached(from.size());
    for (size_t i = 0; i < name_.size(); ++i) reached[i + 1] = from[i] && set[static_cast<uint8_t>(name_[i])];
    return reached;
  }

  CharacterSet Characters() {
    const char c = Take();
    if (c == '.') return ~Range('\n', '\n');
    if (c == '[') return Set();
    if (c == '\\') return Escape();
    if (std::string_view("*+?{}()]").find(c) != std::string_view::npos) Fail("an unexpected " + std::string(1, c));
    return Range(c, c);
  }

  // After the backslash.
  CharacterSet Escape() {
    const char c = Take();
    if (const std::optional<CharacterSet> set = ClassOf(c)) return *set;
    if (WordCharacters()[static_cast<uint8_t>(c)] && c != '_') Fail("the escape \\" + std::string(1, c));
    return Range(c, c);
  }

  // After the bracket.
  CharacterSet Set() {
    const bool inverted = Consume("^");
    CharacterSet set;
    for (bool first = true; first || Current() != ']'; first = false) {
      const char c = Take();
      const CharacterSet characters = c == '\\' ? Escape() : Range(c, c);
      const bool is_range = Current() == '-' && pattern_.substr(at_ + 1, 1) != "]";
      if (is_range) {
        if (c == '\\') Fail("a range that begins with an escape");
        ++at_;
        const char last = Take();
        if (last == '\\' || static_cast<uint8_t>(last) < static_cast<uint8_t>(c)) Fail("a malformed range");
        set |= Range(c, last);
      } else {
        set |= characters;
      }
    }
    ++at_;
    return inverted ? ~set : set;
  }

  std::string_view pattern_;
  const std::string& where_;
  std::string_view name_;
  size_t at_ = 0;
  int depth_ = 0;
  int steps_ = 0;
};

}  // namespace

NamePattern::NamePattern(std::string pattern, std::string where)
    : pattern_(std::move(pattern)), where_(std::move(where)) {
  Matches("");  // reads all of it
}

bool NamePattern::Matches(std::string_view name) const { return Matcher(pattern_, where_, name).Run(); }

}  // namespace heddle
