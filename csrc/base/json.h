// A strict JSON reader for files that nobody vouches for: config.json, safetensors headers, shard indices.
//
// Refuses, with kModelFormat and the byte offset: invalid UTF-8, duplicate keys, nesting beyond kMaxDepth, more than
// kMaxValues values, trailing text, lone surrogates, numbers that are not JSON. Values are immutable; not thread-safe
// to share while building, freely shareable afterwards.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace heddle {

class Json {
 public:
  enum class Type { kNull, kBool, kNumber, kString, kArray, kObject };
  static constexpr int kMaxDepth = 64;
  static constexpr int kMaxValues = 4'000'000;          // a small file must not grow into gigabytes of tree
  static constexpr size_t kMaxFileBytes = 256'000'000;  // the index of 1,000,000 tensors with names of 200 bytes

  // `origin` names the source in messages, e.g. the file's name. Fails with kModelFormat.
  static Json Parse(std::string_view text, const std::string& origin);
  // The whole of a regular file of at most kMaxFileBytes; the origin is its path. Fails with kModelFormat, also when it
  // cannot be read.
  static Json ParseFile(const std::string& path);

  Type type() const;
  bool IsNull() const { return type() == Type::kNull; }
  bool IsBool() const { return type() == Type::kBool; }
  bool IsNumber() const { return type() == Type::kNumber; }
  bool IsString() const { return type() == Type::kString; }
  bool IsArray() const { return type() == Type::kArray; }
  bool IsObject() const { return type() == Type::kObject; }

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
  friend class JsonTreeBuilder;
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;

  // Numbers are kept as uint64_t when AsUint64 has a value.
  std::variant<std::monostate, bool, uint64_t, double, std::string, Array, Object> value_;
};

}  // namespace heddle
