// JSON as text: what is needed to write a checkpoint's small files without changing more of them than is meant.
#pragma once

#include <string>
#include <string_view>

namespace heddle {

// A string in double quotes, with what JSON wants escaped.
std::string JsonString(std::string_view text);

// `object`, the text of a JSON object, with the member `key` being `value` (JSON text itself): in the place of the one
// that it has, or as a last one. Everything else stays as it is, to the byte. Fails with kModelFormat when it is not an
// object.
std::string WithMember(const std::string& object, const std::string& key, const std::string& value,
                       const std::string& origin);

}  // namespace heddle
