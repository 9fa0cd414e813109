#include "compress/json_text.h"

#include <array>
#include <cstdio>

#include "base/json_reader.h"

namespace heddle {
namespace {

void SkipValue(JsonReader& reader) {
  std::string key;
  switch (reader.Peek()) {
    case '{':
      reader.BeginObject();
      while (reader.NextKey(&key)) SkipValue(reader);
      break;
    case '[':
      reader.BeginArray();
      while (reader.NextElement()) SkipValue(reader);
      break;
    case '"':
      reader.ReadString();
      break;
    case 't':
    case 'f':
      reader.ReadBool();
      break;
    case 'n':
      reader.ReadNull();
      break;
    default:
      reader.ReadNumber();
  }
}

}  // namespace

std::string JsonString(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      std::array<char, 8> escaped{};
      (void)std::snprintf(escaped.data(), escaped.size(), "\\u%04x", static_cast<unsigned>(c));
      quoted += escaped.data();
    } else {
      quoted += c;
    }
  }
  return quoted + "\"";
}

std::string WithMember(const std::string& object, const std::string& key, const std::string& value,
                       const std::string& origin) {
  JsonReader reader(object, origin);
  reader.BeginObject();
  std::string name;
  size_t end = 0;  // of the last member
  while (reader.NextKey(&name)) {
    reader.Peek();
    const size_t begin = reader.offset();
    SkipValue(reader);
    end = reader.offset();
    if (name == key) return object.substr(0, begin) + value + object.substr(end);
  }
  const size_t close = object.rfind('}');
  if (end == 0) return "{\n  " + JsonString(key) + ": " + value + "\n" + object.substr(close);
  return object.substr(0, end) + ",\n  " + JsonString(key) + ": " + value + object.substr(end);
}

}  // namespace heddle
