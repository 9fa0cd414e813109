// Makes well-formed UTF-8 of bytes that come in pieces cut anywhere.
//
// A character cut by the end of a piece waits for the next one. What can never become a character turns into U+FFFD,
// one for each maximal subpart of an ill-formed sequence, as the Unicode standard (section 3.9) recommends and the
// WHATWG decoder does. The text is the same however the bytes are cut. Not thread-safe.
#pragma once

#include <string>
#include <string_view>

namespace heddle {

class Utf8Decoder {
 public:
  // Appends to `text` what is now certain; at most three bytes wait.
  void Decode(std::string_view bytes, std::string& text);

  // Ends the input: one U+FFFD when an incomplete character waits.
  void Flush(std::string& text);

 private:
  std::string pending_;
};

}  // namespace heddle
