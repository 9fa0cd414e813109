// UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing beyond U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace heddle {

// Bytes of the well-formed character at the start of `text`; 0 when there is none, also for an empty text.
size_t Utf8CharacterLength(std::string_view text);

// Offset of the first byte that does not belong to a well-formed character; text.size() when all do.
size_t FindInvalidUtf8(std::string_view text);

// REQUIRES: a Unicode scalar value.
void AppendUtf8(uint32_t code_point, std::string& text);

}  // namespace heddle
