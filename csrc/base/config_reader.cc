#include "base/config_reader.h"

#include <charconv>
#include <limits>

#include "base/error.h"
#include "base/quote.h"

namespace heddle {
namespace {

std::string NumberToString(double number) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof(text), number);
  return error == std::errc() ? std::string(text, end) : "a number";
}

std::string Describe(const Json& json) {
  switch (json.type()) {
    case Json::Type::kNull:
      return "null";
    case Json::Type::kBool:
      return json.AsBool() ? "true" : "false";
    case Json::Type::kNumber:
      return json.AsUint64() ? std::to_string(*json.AsUint64()) : NumberToString(json.AsDouble());
    case Json::Type::kString:
      return Quote(json.AsString());
    case Json::Type::kArray:
      return "a list";
    case Json::Type::kObject:
      break;
  }
  return "an object";
}

}  // namespace

ConfigReader::ConfigReader(std::vector<const Json*> objects, std::string path)
    : objects_(std::move(objects)), path_(std::move(path)) {
  for (const Json* object : objects_) {
    if (object->IsObject()) continue;
    const std::string name = path_.empty() ? "the file" : path_.substr(0, path_.size() - 1);
    throw Error(ErrorCode::kModelFormat,
                "config.json: " + name + " must hold an object, received " + Describe(*object));
  }
}

const Json* ConfigReader::Find(std::string_view key) const {
  for (const Json* object : objects_) {
    if (const Json* value = object->Find(key)) return value;
  }
  return nullptr;
}

bool ConfigReader::Has(std::string_view key) const {
  const Json* value = Find(key);
  return value != nullptr && !value->IsNull();
}

void ConfigReader::FailFormat(std::string_view key, const std::string& expectation) const {
  const std::string name = "config.json: " + path_ + std::string(key);
  const Json* value = Find(key);
  throw Error(ErrorCode::kModelFormat, value == nullptr
                                           ? name + " is missing, expected " + expectation
                                           : name + " must be " + expectation + ", received " + Describe(*value));
}

void ConfigReader::FailUnsupported(std::string_view key, const std::string& hint) const {
  const Json* value = Find(key);
  throw Error(ErrorCode::kUnsupportedModel, "config.json: " + path_ + std::string(key) + " " +
                                                (value == nullptr ? "" : Describe(*value) + " ") + "is not supported" +
                                                hint);
}

int ConfigReader::Int(std::string_view key, int min, int max, std::optional<int> fallback) const {
  if (fallback && !Has(key)) return *fallback;
  const Json* value = Find(key);
  const std::optional<uint64_t> integer = value != nullptr && value->IsNumber() ? value->AsUint64() : std::nullopt;
  if (!integer || *integer < static_cast<uint64_t>(min) || *integer > static_cast<uint64_t>(max)) {
    FailFormat(key, "an integer from " + std::to_string(min) + " to " + std::to_string(max));
  }
  return static_cast<int>(*integer);
}

double ConfigReader::Number(std::string_view key, double min, double max, std::optional<double> fallback) const {
  if (fallback && !Has(key)) return *fallback;
  const Json* value = Find(key);
  const bool is_number = value != nullptr && value->IsNumber();
  if (!is_number || !(value->AsDouble() >= min && value->AsDouble() <= max)) {
    FailFormat(key, "a number from " + NumberToString(min) + " to " + NumberToString(max));
  }
  return value->AsDouble();
}

bool ConfigReader::Bool(std::string_view key, bool fallback) const {
  if (!Has(key)) return fallback;
  if (!Find(key)->IsBool()) FailFormat(key, "true or false");
  return Find(key)->AsBool();
}

std::string ConfigReader::String(std::string_view key, std::optional<std::string> fallback) const {
  if (fallback && !Has(key)) return *fallback;
  const Json* value = Find(key);
  if (value == nullptr || !value->IsString()) FailFormat(key, "a string");
  return value->AsString();
}

const Json* ConfigReader::Object(std::string_view key) const {
  if (!Has(key)) return nullptr;
  if (!Find(key)->IsObject()) FailFormat(key, "an object");
  return Find(key);
}

std::vector<std::string> ConfigReader::Strings(std::string_view key) const {
  constexpr const char* kExpectation = "a list of strings";
  std::vector<std::string> strings;
  if (!Has(key)) return strings;
  if (!Find(key)->IsArray()) FailFormat(key, kExpectation);
  for (const Json& item : Find(key)->AsArray()) {
    if (!item.IsString()) FailFormat(key, kExpectation);
    strings.push_back(item.AsString());
  }
  return strings;
}

}  // namespace heddle
