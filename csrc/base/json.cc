#include "base/json.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "base/file.h"
#include "base/json_reader.h"
#include "base/quote.h"

namespace heddle {

static_assert(Json::kMaxDepth == JsonReader::kMaxDepth);

// Recursive: JsonReader bounds the depth.
class JsonTreeBuilder {
 public:
  JsonTreeBuilder(std::string_view text, const std::string& origin) : reader_(text, origin) {}

  Json Build() {
    Json root = Value();
    reader_.ExpectEnd();
    return root;
  }

 private:
  Json Value() {
    if (++num_values_ > Json::kMaxValues) {
      reader_.Fail("more than " + std::to_string(Json::kMaxValues) + " values");
    }
    Json json;
    switch (reader_.Peek()) {
      case '{':
        json.value_ = Object();
        break;
      case '[':
        json.value_ = Array();
        break;
      case '"':
        json.value_ = reader_.ReadString();
        break;
      case 't':
      case 'f':
        json.value_ = reader_.ReadBool();
        break;
      case 'n':
        reader_.ReadNull();
        break;
      default:
        SetNumber(reader_.ReadNumber(), json);
    }
    return json;
  }

  static void SetNumber(const JsonReader::Number& number, Json& json) {
    if (number.integer) {
      json.value_ = *number.integer;
    } else {
      json.value_ = number.value;
    }
  }

  Json::Array Array() {
    Json::Array elements;
    reader_.BeginArray();
    while (reader_.NextElement()) elements.push_back(Value());
    return elements;
  }

  Json::Object Object() {
    Json::Object members;
    std::vector<size_t> offsets;
    std::string key;
    reader_.BeginObject();
    while (reader_.NextKey(&key)) {
      offsets.push_back(reader_.key_offset());
      Json value = Value();
      members.emplace_back(std::move(key), std::move(value));
    }
    CheckKeysDiffer(members, offsets);
    return members;
  }

  // By sorting, which no choice of keys can slow down.
  void CheckKeysDiffer(const Json::Object& members, const std::vector<size_t>& offsets) {
    std::vector<size_t> order(members.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return members[a].first < members[b].first; });
    for (size_t i = 1; i < order.size(); ++i) {
      const std::string& key = members[order[i]].first;
      if (key == members[order[i - 1]].first) reader_.Fail("duplicate key " + Quote(key), offsets[order[i]]);
    }
  }

  JsonReader reader_;
  int num_values_ = 0;
};

Json Json::Parse(std::string_view text, const std::string& origin) { return JsonTreeBuilder(text, origin).Build(); }

Json Json::ParseFile(const std::string& path) { return Parse(ReadFile(path, kMaxFileBytes), path); }

Json::Type Json::type() const {
  constexpr Type kTypes[] = {Type::kNull,   Type::kBool,  Type::kNumber, Type::kNumber,
                             Type::kString, Type::kArray, Type::kObject};
  static_assert(std::size(kTypes) == std::variant_size_v<decltype(value_)>);
  return kTypes[value_.index()];
}

bool Json::AsBool() const {
  HEDDLE_CHECK(IsBool(), "");
  return std::get<bool>(value_);
}

double Json::AsDouble() const {
  HEDDLE_CHECK(IsNumber(), "");
  const auto* integer = std::get_if<uint64_t>(&value_);
  return integer != nullptr ? static_cast<double>(*integer) : std::get<double>(value_);
}

const std::string& Json::AsString() const {
  HEDDLE_CHECK(IsString(), "");
  return std::get<std::string>(value_);
}

const std::vector<Json>& Json::AsArray() const {
  HEDDLE_CHECK(IsArray(), "");
  return std::get<Array>(value_);
}

const std::vector<std::pair<std::string, Json>>& Json::AsObject() const {
  HEDDLE_CHECK(IsObject(), "");
  return std::get<Object>(value_);
}

std::optional<uint64_t> Json::AsUint64() const {
  HEDDLE_CHECK(IsNumber(), "");
  const auto* integer = std::get_if<uint64_t>(&value_);
  return integer != nullptr ? std::optional<uint64_t>(*integer) : std::nullopt;
}

const Json* Json::Find(std::string_view key) const {
  const auto* members = std::get_if<Object>(&value_);
  if (members == nullptr) return nullptr;
  for (const auto& [name, value] : *members) {
    if (name == key) return &value;
  }
  return nullptr;
}

}  // namespace heddle
