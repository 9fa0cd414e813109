// What a request's own rules do to the logits before a token is chosen, in vLLM's order:
//
//   1. allowed_token_ids: every other logit becomes -inf.
//   2. bad_words: the last token of a sequence becomes -inf where the generated tokens (never the prompt's) end with
//      the tokens before it; one-token sequences always.
//   3. min_tokens: while fewer were generated, the end-of-sequence ids (also under ignore_eos) and stop_token_ids
//      become -inf.
//   4. logit_bias is added.
//   5. repetition_penalty divides positive and multiplies negative logits of tokens in the prompt or the output; then
//      frequency_penalty times the count in the output and presence_penalty are subtracted, for tokens in the output.
//
// A logit that is -inf stays so; a finite one never becomes +inf or NaN, but saturates. Ids outside the vocabulary are
// ignored. Keeps scratch memory but no state between calls. Not thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sampler/sampling_input.h"

namespace heddle {

class LogitsProcessor {
 public:
  explicit LogitsProcessor(int vocab_size);

  // Whether Apply would do anything.
  static bool IsNeeded(const SamplingInput& input);

  // Ids that rules 2 and 3 ban just now; an id may come twice.
  static std::vector<int32_t> BannedIds(const SamplingInput& input);

  // Rewrites `logits` [vocab_size] in place.
  void Apply(const SamplingInput& input, std::span<float> logits);

 private:
  void KeepAllowed(std::span<const int32_t> allowed, std::span<float> logits);
  void PenalizeRepetition(float penalty, std::span<const int32_t> token_ids, std::span<float> logits);
  void PenalizeOutput(const SamplingParams& params, std::span<const int32_t> generated, std::span<float> logits);

  std::vector<float> kept_;       // logits of the allowed ids
  std::vector<uint32_t> counts_;  // [vocab_size], all zero between calls
};

}  // namespace heddle
