// Reads JSON text value by value, without building a tree: for documents whose form is known and whose size is not.
// As strict as Json, which is built on it, except that duplicate keys are the caller's to find.
//
//   reader.BeginObject();
//   while (reader.NextKey(&key)) { ... read exactly one value ... }
//   reader.ExpectEnd();
//
// Every failure is kModelFormat: "<origin>: <what is wrong> at byte <offset>". Reading a value of another type than
// the one that stands there is such a failure. Not thread-safe; the text outlives the reader.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace heddle {

class JsonReader {
 public:
  static constexpr int kMaxDepth = 64;

  struct Number {
    double value = 0;                 // infinite when the text is beyond double, as 1e999
    std::optional<uint64_t> integer;  // when written in plain digits (no sign, fraction or exponent), below 2^64
  };

  // Fails when the text is not UTF-8.
  JsonReader(std::string_view text, std::string origin);

  // The first character of the next value: one of { [ " - 0..9 t f n. Fails at anything else.
  char Peek();

  void BeginObject();
  // The next key, or false at the end of the object, which is then left behind.
  bool NextKey(std::string* key);
  void BeginArray();
  // Whether another value follows; at the end of the array, which is then left behind, false.
  bool NextElement();

  std::string ReadString();
  Number ReadNumber();
  bool ReadBool();
  void ReadNull();

  // Nothing but white space is left.
  void ExpectEnd();

  size_t offset() const { return at_; }
  size_t key_offset() const { return key_at_; }  // where the key that NextKey returned last begins
  [[noreturn]] void Fail(const std::string& what) const { Fail(what, at_); }
  [[noreturn]] void Fail(const std::string& what, size_t offset) const;

 private:
  void SkipSpace();
  char Current() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool Consume(char expected);
  void Open(char bracket, const char* expected);
  bool Next(char closing);
  void ReadLiteral(std::string_view literal, const char* expected);
  void ReadEscape(std::string& out);
  uint32_t ReadHex4();

  std::string_view text_;
  std::string origin_;
  size_t at_ = 0;
  size_t key_at_ = 0;
  int depth_ = 0;
  std::array<bool, kMaxDepth> has_members_{};  // of each open object or array
};

}  // namespace heddle
