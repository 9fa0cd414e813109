#include "base/quote.h"

#include <cstdint>

#include "base/utf8.h"

namespace heddle {
namespace {

constexpr size_t kMaxQuotedBytes = 80;

void AppendEscaped(std::string_view character, std::string& quoted) {
  constexpr char kHex[] = "0123456789abcdef";
  const auto byte = static_cast<uint8_t>(character[0]);
  if (byte < 0x20 || byte == 0x7f) {
    quoted += {'\\', 'u', '0', '0', kHex[byte >> 4], kHex[byte & 15]};
  } else {
    if (byte == '"' || byte == '\\') quoted += '\\';
    quoted += character;
  }
}

}  // namespace

std::string Quote(std::string_view text) {
  std::string quoted = "\"";
  while (!text.empty() && quoted.size() <= kMaxQuotedBytes) {
    const size_t length = Utf8CharacterLength(text);
    if (length == 0) {
      AppendUtf8(0xfffd, quoted);
    } else {
      AppendEscaped(text.substr(0, length), quoted);
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return quoted + (text.empty() ? "\"" : "...\"");
}

}  // namespace heddle
