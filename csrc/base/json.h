// A strict JSON reader for files that nobody vouches for: config.json, safetensors headers, shard indices.
//
// Refuses, with kModelFormat and the byte offset: invalid UTF-8, duplicate keys, nesting beyond kMaxDepth, trailing
// text, lone surrogates, numbers that are not JSON. Values are immutable; not thread-safe to share while building,
// freely shareable afterwards.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace heddle {

class Json {
 public:
  enum class Type { kNull, kBool, kNumber, kString, kArray, kObject };
  static constexpr int kMaxDepth = 64;

  // `origin` names the source in messages, e.g. the file's name. Fails with kModelFormat.
  static Json Parse(std::string_view text, const std::string& origin);

  Type type() const { return type_; }
  bool IsNull() const { return type_ == Type::kNull; }
  bool IsBool() const { return type_ == Type::kBool; }
  bool IsNumber() const { return type_ == Type::kNumber; }
  bool IsString() const { return type_ == Type::kString; }
  bool IsArray() const { return type_ == Type::kArray; }
  bool IsObject() const { return type_ == Type::kObject; }

  // REQUIRES (HEDDLE_CHECK): the matching type.
  bool AsBool() const;
  double AsDouble() const;  // may be infinite for 1e999: the caller decides
  const std::string& AsString() const;
  const std::vector<Json>& AsArray() const;
  const std::vector<std::pair<std::string, Json>>& AsObject() const;  // in file order

  // The number as written, when it is an integer in plain decimal digits (no sign, fraction or exponent) below 2^64.
  std::optional<uint64_t> AsUint64() const;

  // The member, or null when this is not an object or has no such key.
  const Json* Find(std::string_view key) const;

 private:
  friend class JsonParser;
  Type type_ = Type::kNull;
  bool bool_ = false;
  std::string text_;  // of a string, or of a number as written
  std::vector<Json> array_;
  std::vector<std::pair<std::string, Json>> object_;
};

}  // namespace heddle
