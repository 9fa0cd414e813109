// From logits to the next token of each sequence.
//
// Order, as in vLLM: log-probabilities are taken from the untouched logits; then allowed ids, bad words, minimum
// length, logit bias, penalties (see logits_processor.h); then temperature, min-p, top-k, top-p; then one draw.
//
//   temperature  0 is greedy: the largest logit, the lowest id among equals; nothing below applies then.
//   min_p        keeps tokens at least min_p times as likely as the likeliest.
//   top_k        keeps the k largest logits and whatever equals the k-th, so that it does not depend on ids.
//   top_p        keeps the smallest set of the likeliest tokens left whose share of their mass reaches top_p, at least
//                one; of equals the lower id comes first.
//
// The draw inverts the cumulative distribution over the tokens kept, in ascending order of id, with float64 sums. Its
// random number is keyed by (seed, sequence index, position) through Philox4x32-10, so it depends on nothing else in
// the batch, and replaying a sequence gives the same token. A token of probability zero is never drawn.
//
// Keeps scratch memory between calls, but no state of any request: threads that sample at the same time have one each.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/model_output.h"
#include "device/cpu_isa.h"
#include "sampler/logits_processor.h"
#include "sampler/sampling_input.h"

namespace heddle {

class Sampler {
 public:
  explicit Sampler(int vocab_size, CpuIsa isa);

  // Samples the token after input.token_ids from `logits` [vocab_size]. Sets token_id, logprob and sampled of `out`,
  // and gives it logprobs when params.logprobs >= 0 (at most vocab_size). When no token can be sampled, sets
  // failure instead and leaves the rest alone.
  void Sample(std::span<const float> logits, const SamplingInput& input, SequenceOutput& out);

  // Appends the row of `token_id` to `out`: the token, then the k best, descending, the lower id first among equals.
  // Its rank is 1 + the number of larger logits. Returns false, appending nothing, when `logits` [vocab_size] hold a
  // NaN or +inf, or no finite number. REQUIRES: token_id in the vocabulary, 0 <= k <= vocab_size, the same k in all
  // rows of `out`.
  bool AppendLogprobs(std::span<const float> logits, int32_t token_id, int k, LogprobsData& out);

 private:
  struct Candidate {
    float value;
    int32_t id;
    // The order of all rankings here.
    friend bool operator<(const Candidate& a, const Candidate& b) {
      return a.value > b.value || (a.value == b.value && a.id < b.id);
    }
  };

  // Nothing when the request allows no token.
  std::optional<int32_t> Choose(std::span<const float> logits, const SamplingInput& input);
  void AppendRow(std::span<const float> logits, float log_sum, int32_t token_id, int k, LogprobsData& out);

  void SelectBest(std::span<const float> row, size_t k);
  void ApplyTopK(int k, std::span<float> row);
  void ApplyTopP(double p, std::span<float> weights);
  double SumBlocks(std::span<const float> weights);
  int32_t Draw(double random, std::span<const float> weights);

  size_t vocab_size_;
  CpuIsa isa_;
  LogitsProcessor processor_;
  std::vector<float> row_;  // [vocab_size] the logits on their way to weights
  std::vector<Candidate> candidates_;
  std::vector<double> block_sums_;
};

}  // namespace heddle
