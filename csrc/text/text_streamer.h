// Turns the tokens of one sequence into text that can be shown at once, and finds stop strings.
//
// Emits only whole UTF-8 characters (an incomplete tail waits for its next token; what can never become a character
// turns into U+FFFD, one for each maximal invalid part, as the Unicode standard recommends), and holds back text that
// may be the beginning of a stop string. Not thread-safe: engine thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "text/vocabulary.h"

namespace heddle {

struct TextStreamerOptions {
  std::vector<std::string> stop;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;
  bool spaces_between_special_tokens = true;
};

class TextStreamer {
 public:
  TextStreamer(std::shared_ptr<const Vocabulary> vocabulary, TextStreamerOptions options);

  // Adds a token and returns the text that is now certain. When this token completes a stop string, stop_index() is set,
  // the returned text ends before it (or after it, with include_stop_str_in_output), and later calls are errors.
  // Among several completed by one token, the one that starts earliest wins, then the one listed first.
  // `match_stop` is false while a sequence is below min_tokens: its text can then not complete a stop string.
  std::string Put(int32_t token_id, bool match_stop = true);

  // Everything still held back, with U+FFFD for an incomplete character. Called once, when the sequence ends otherwise.
  std::string Finish();

  // Index into options.stop.
  std::optional<int> stop_index() const { return stop_index_; }

 private:
  std::shared_ptr<const Vocabulary> vocabulary_;
  TextStreamerOptions options_;
  std::string pending_bytes_;  // an incomplete UTF-8 character
  std::string held_;           // valid text that may begin a stop string
  std::optional<int> stop_index_;
  size_t min_match_position_ = 0;
  bool finished_ = false;
  bool previous_special_ = false;
};

// The text of `token_ids` on their own: Put for each, then Finish.
std::string Decode(std::shared_ptr<const Vocabulary> vocabulary, std::span<const int32_t> token_ids,
                   bool skip_special_tokens);

}  // namespace heddle
