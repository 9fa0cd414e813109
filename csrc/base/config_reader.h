// Typed, range-checked access to the members of config.json, so that every message names key, expectation and value.
//
// A view: the Json outlives it. An absent key and a null are the same thing, except to Find.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace heddle {

class ConfigReader {
 public:
  // Looks a key up in `objects`, in order, and takes the first that has it. `path` stands before keys in messages,
  // e.g. "rope_scaling.". Fails with kModelFormat when one of them is not an object.
  explicit ConfigReader(const Json& object, std::string path = "") : ConfigReader(std::vector{&object}, path) {}
  ConfigReader(std::vector<const Json*> objects, std::string path);

  // Null when no object has the key; may point at a null.
  const Json* Find(std::string_view key) const;
  bool Has(std::string_view key) const;  // present and not null

  // The value, or the fallback when it is absent. All fail with kModelFormat: absent without fallback, of another
  // type, outside [min, max], not finite.
  int Int(std::string_view key, int min, int max, std::optional<int> fallback = std::nullopt) const;
  double Number(std::string_view key, double min, double max, std::optional<double> fallback = std::nullopt) const;
  bool Bool(std::string_view key, bool fallback) const;
  std::string String(std::string_view key, std::optional<std::string> fallback = std::nullopt) const;

  // The sub-object, or null when absent.
  const Json* Object(std::string_view key) const;

  // The strings of a list; none when absent.
  std::vector<std::string> Strings(std::string_view key) const;

  // kModelFormat: "config.json: rope_scaling.factor must be <expectation>, received <value>", or "is missing".
  [[noreturn]] void FailFormat(std::string_view key, const std::string& expectation) const;
  // kUnsupportedModel: "config.json: rope_scaling.rope_type "longrope" is not supported<hint>".
  [[noreturn]] void FailUnsupported(std::string_view key, const std::string& hint = "") const;

 private:
  std::vector<const Json*> objects_;
  std::string path_;
};

}  // namespace heddle
