// Turns the tokens of one sequence into text that can be shown at once, and finds stop strings.
//
// Emits only whole UTF-8 characters: an incomplete one waits for its next token; what can never become a character
// turns into U+FFFD, one for each maximal invalid part, as the Unicode standard recommends. Holds back text that may
// be the beginning of a stop string, unless stop strings are part of the output: then nothing need ever be taken back.
//
// Special tokens never share a character with their neighbours: one that is met in the middle of a character ends it as
// U+FFFD, also when it gives no text itself.
//
// Tokens are joined by nothing. vLLM's spaces_between_special_tokens has no counterpart here: it acts only where a
// tokenizer's decoder puts spaces between tokens, which byte tables do not.
//
// Not thread-safe: engine thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "text/stop_matcher.h"
#include "text/utf8_decoder.h"
#include "text/vocabulary.h"

namespace heddle {

struct TextStreamerOptions {
  std::vector<std::string> stop = {};  // well-formed UTF-8, none empty
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;
};

class TextStreamer {
 public:
  TextStreamer(std::shared_ptr<const Vocabulary> vocabulary, const TextStreamerOptions& options);

  // Adds a token and returns the text that is now certain. When this token completes a stop string, stop_index() is
  // set, the returned text ends before it (or after it, with include_stop_str_in_output), and later calls are errors.
  // Among several completed by one token, the one that ends earliest wins, then the one listed first, as in vLLM: the
  // text does not depend on how it was cut into tokens.
  // A stop string whose last character comes from a token with `match_stop` false is passed over. vLLM passes over the
  // first min_tokens tokens: match_stop = num_generated_tokens > min_tokens, this token counted.
  std::string Put(int32_t token_id, bool match_stop = true);

  // Everything still held back, with U+FFFD for an incomplete character; stop strings are not looked for. Called once,
  // when the sequence ends otherwise.
  std::string Finish();

  // Index into options.stop.
  std::optional<int> stop_index() const { return stop_index_; }

 private:
  std::string Decode(int32_t token_id);

  std::shared_ptr<const Vocabulary> vocabulary_;
  TextStreamerOptions options_;
  Utf8Decoder decoder_;
  StopMatcher matcher_;
  std::string held_;  // text that may begin a stop string
  std::optional<int> stop_index_;
  bool finished_ = false;
};

// The text of `token_ids` on their own: Put for each, then Finish.
std::string Decode(std::shared_ptr<const Vocabulary> vocabulary, std::span<const int32_t> token_ids,
                   bool skip_special_tokens);

}  // namespace heddle
