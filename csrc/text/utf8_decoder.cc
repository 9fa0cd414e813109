#include "text/utf8_decoder.h"

#include <algorithm>

#include "base/utf8.h"

namespace heddle {
namespace {

constexpr std::string_view kReplacementCharacter = "\xef\xbf\xbd";

// Whether some continuation makes `bytes` (one to three of them) a well-formed character. The range of a second byte
// is never narrowed at both ends, so one of the extreme continuation bytes always fits where any does.
bool BeginsCharacter(std::string_view bytes) {
  for (const char continuation : {'\x80', '\xbf'}) {
    std::string completed(bytes);
    completed.resize(4, continuation);
    if (Utf8CharacterLength(completed) > bytes.size()) return true;
  }
  return false;
}

}  // namespace

void Utf8Decoder::Decode(std::string_view bytes, std::string& text) {
  if (!pending_.empty()) {
    pending_ += bytes;
    bytes = pending_;
  }
  size_t at = 0;
  while (true) {
    const size_t length = FindInvalidUtf8(bytes.substr(at));
    text += bytes.substr(at, length);
    at += length;
    const std::string_view rest = bytes.substr(at);
    size_t subpart = 0;
    while (subpart < std::min<size_t>(rest.size(), 3) && BeginsCharacter(rest.substr(0, subpart + 1))) ++subpart;
    if (subpart == rest.size()) {
      pending_ = std::string(rest);
      return;
    }
    text += kReplacementCharacter;
    at += std::max<size_t>(subpart, 1);
  }
}

void Utf8Decoder::Flush(std::string& text) {
  if (!pending_.empty()) text += kReplacementCharacter;
  pending_.clear();
}

}  // namespace heddle
