// Text from a file, made fit for an error message.
#pragma once

#include <string>
#include <string_view>

namespace heddle {

// In double quotes, as JSON writes it, shortened to about 80 bytes on a character boundary. Control characters are
// escaped and bytes that are not UTF-8 replaced, so the result is printable whatever the file held.
std::string Quote(std::string_view text);

}  // namespace heddle
