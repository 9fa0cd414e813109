// From logits to the next token of each sequence.
//
// Order, as in vLLM: log-probabilities are taken from the untouched logits; then allowed ids, bad words, minimum length,
// logit bias, penalties; then temperature, min-p, top-k, top-p; then one draw. The draw is keyed by (seed, sequence
// index, position) through Philox4x32-10, so it depends on nothing else in the batch. Greedy (temperature 0) takes the
// largest logit, the lowest id among equals.
//
// Runs on the thread of the rank that holds the gathered logits. Holds no per-request state.
#pragma once

#include <cstdint>
#include <span>

#include "core/model_output.h"
#include "core/sampling_params.h"
#include "device/stream.h"

namespace heddle {

struct SamplingInput {
  const SamplingParams* params = nullptr;
  std::span<const int32_t> token_ids;  // prompt, then generated
  int prompt_len = 0;
  int sequence_index = 0;
  std::span<const int32_t> eos_token_ids;
};

class Sampler {
 public:
  explicit Sampler(int vocab_size);

  // Samples the token after input.token_ids. `logits` [vocab_size] is overwritten. Sets token_id, logprob, logprobs and
  // has_nan of `out` (has_nan: a NaN, or no finite logit remains; no token then).
  void Sample(Stream& stream, std::span<float> logits, const SamplingInput& input, SequenceOutput& out);

  // Appends the row of `token_id` and the k best to `out`.
  void AppendLogprobs(Stream& stream, std::span<const float> logits, int32_t token_id, int k, LogprobsData& out);
};

}  // namespace heddle
