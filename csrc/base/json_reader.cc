#include "base/json_reader.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "base/error.h"
#include "base/utf8.h"

namespace heddle {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// What a well-formed number beyond the range of double stands for, which std::from_chars leaves open: infinity, or
// zero when it is too small. Decided by the decimal exponent of its first significant digit.
double OutOfRangeValue(std::string_view text) {
  const bool negative = text[0] == '-';
  if (negative) text.remove_prefix(1);
  const size_t mantissa_end = std::min(text.find_first_of("eE"), text.size());
  const std::string_view mantissa = text.substr(0, mantissa_end);
  const auto point = static_cast<int64_t>(std::min(mantissa.find('.'), mantissa.size()));
  const auto first = static_cast<int64_t>(std::min(mantissa.find_first_of("123456789"), mantissa.size()));
  int64_t exponent = 0;
  bool exponent_negative = false;
  for (const char c : text.substr(std::min(mantissa_end + 1, text.size()))) {
    if (c == '-') exponent_negative = true;
    if (IsDigit(c)) exponent = std::min<int64_t>(exponent * 10 + (c - '0'), int64_t{1} << 40);
  }
  const bool large = point - first + (exponent_negative ? -exponent : exponent) > 0;
  const double magnitude = large ? std::numeric_limits<double>::infinity() : 0.0;
  return negative ? -magnitude : magnitude;
}

}  // namespace

JsonReader::JsonReader(std::string_view text, std::string origin) : text_(text), origin_(std::move(origin)) {
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid < text.size()) Fail("invalid UTF-8", invalid);
}

void JsonReader::Fail(const std::string& what, size_t offset) const {
  throw Error(ErrorCode::kModelFormat, origin_ + ": " + what + " at byte " + std::to_string(offset));
}

void JsonReader::SkipSpace() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) {
    ++at_;
  }
}

bool JsonReader::Consume(char expected) {
  if (at_ >= text_.size() || text_[at_] != expected) return false;
  ++at_;
  return true;
}

char JsonReader::Peek() {
  SkipSpace();
  if (at_ >= text_.size()) Fail("the text ends where a JSON value is expected");
  const char c = text_[at_];
  if (!IsDigit(c) && std::string_view("{[\"-tfn").find(c) == std::string_view::npos) Fail("expected a JSON value");
  return c;
}

void JsonReader::Open(char bracket, const char* expected) {
  if (Peek() != bracket) Fail(expected);
  if (depth_ == kMaxDepth) Fail("more than " + std::to_string(kMaxDepth) + " levels of nesting");
  has_members_[static_cast<size_t>(depth_++)] = false;
  ++at_;
}

// Moves to the next member, or leaves at the closing bracket.
bool JsonReader::Next(char closing) {
  SkipSpace();
  if (Consume(closing)) {
    --depth_;
    return false;
  }
  bool& has_members = has_members_[static_cast<size_t>(depth_ - 1)];
  if (has_members && !Consume(',')) Fail(std::string("expected ',' or '") + closing + "'");
  has_members = true;
  return true;
}

void JsonReader::BeginObject() { Open('{', "expected an object"); }
void JsonReader::BeginArray() { Open('[', "expected an array"); }
bool JsonReader::NextElement() { return Next(']'); }

bool JsonReader::NextKey(std::string* key) {
  if (!Next('}')) return false;
  if (Peek() != '"') Fail("expected a key in double quotes");
  key_at_ = at_;
  *key = ReadString();
  SkipSpace();
  if (!Consume(':')) Fail("expected ':' after a key");
  return true;
}

std::string JsonReader::ReadString() {
  if (Peek() != '"') Fail("expected a string");
  ++at_;
  std::string out;
  for (;;) {
    const size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' && static_cast<uint8_t>(text_[at_]) >= 0x20) {
      ++at_;
    }
    out.append(text_.substr(begin, at_ - begin));
    if (at_ >= text_.size()) Fail("the text ends inside a string");
    if (Consume('"')) return out;
    if (!Consume('\\')) Fail("an unescaped control character in a string");
    ReadEscape(out);
  }
}

// After the backslash.
void JsonReader::ReadEscape(std::string& out) {
  constexpr std::string_view kEscapes = "\"\\/bfnrt";
  constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  if (!Consume('u')) {
    const size_t which = at_ < text_.size() ? kEscapes.find(text_[at_]) : std::string_view::npos;
    if (which == std::string_view::npos) Fail("an unknown escape in a string");
    ++at_;
    out += kMeanings[which];
    return;
  }
  const size_t begin = at_;
  uint32_t code_point = ReadHex4();
  if (code_point >= 0xd800 && code_point <= 0xdfff) {
    const bool high = code_point < 0xdc00;
    const uint32_t low = high && Consume('\\') && Consume('u') ? ReadHex4() : 0;
    if (low < 0xdc00 || low > 0xdfff) Fail("a lone surrogate in a string", begin);
    code_point = 0x10000 + ((code_point - 0xd800) << 10) + (low - 0xdc00);
  }
  AppendUtf8(code_point, out);
}

uint32_t JsonReader::ReadHex4() {
  uint32_t value = 0;
  const char* begin = text_.data() + at_;
  const size_t available = std::min<size_t>(4, text_.size() - at_);
  const auto [end, error] = std::from_chars(begin, begin + available, value, 16);
  if (error != std::errc() || end != begin + 4) Fail("expected four hexadecimal digits");
  at_ += 4;
  return value;
}

JsonReader::Number JsonReader::ReadNumber() {
  if (Peek() != '-' && !IsDigit(Current())) Fail("expected a number");
  const size_t begin = at_;
  const bool negative = Consume('-');
  const auto digits = [&] {
    if (!IsDigit(Current())) Fail("a malformed number");
    while (IsDigit(Current())) ++at_;
  };
  if (Consume('0')) {
    if (IsDigit(Current())) Fail("a number with a leading zero");
  } else {
    digits();
  }
  const size_t integer_end = at_;
  if (Consume('.')) digits();
  if (Consume('e') || Consume('E')) {
    if (!Consume('+')) Consume('-');
    digits();
  }

  const std::string_view text = text_.substr(begin, at_ - begin);
  Number number;
  if (!negative && integer_end == at_) {
    uint64_t integer = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), integer).ec == std::errc()) number.integer = integer;
  }
  if (number.integer) {
    number.value = static_cast<double>(*number.integer);
  } else if (std::from_chars(text.data(), text.data() + text.size(), number.value).ec != std::errc()) {
    number.value = OutOfRangeValue(text);
  }
  return number;
}

void JsonReader::ReadLiteral(std::string_view literal, const char* expected) {
  Peek();
  if (text_.substr(at_, literal.size()) != literal) Fail(expected);
  at_ += literal.size();
}

bool JsonReader::ReadBool() {
  const bool value = Peek() == 't';
  ReadLiteral(value ? "true" : "false", "expected true or false");
  return value;
}

void JsonReader::ReadNull() { ReadLiteral("null", "expected null"); }

void JsonReader::ExpectEnd() {
  SkipSpace();
  if (at_ < text_.size()) Fail("text after the end of the JSON value");
}

}  // namespace heddle
