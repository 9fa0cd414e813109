#include "scheduler/sequence.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "scheduler/repetition.h"

namespace heddle {
namespace {

bool Contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// A stop or end-of-sequence id. A listed id counts as listed even where it also ends sequences by itself.
StopVerdict CheckStopTokens(const Request& request, int32_t token) {
  const SamplingParams& params = request.sampling_params;
  if (Contains(params.stop_token_ids, token)) return {.reason = FinishReason::kStop, .stop_token_id = token};
  if (!params.ignore_eos && Contains(request.eos_token_ids, token)) {
    return {.reason = FinishReason::kStop, .stop_token_id = token, .by_eos = true};
  }
  return {};
}

}  // namespace

void ValidateRequest(const Request& request, int max_model_len) {
  const size_t prompt_len = request.prompt_token_ids.size();
  if (prompt_len < 1 || prompt_len >= static_cast<size_t>(max_model_len)) {
    throw Error(ErrorCode::kInvalidArgument, "prompt must have at least 1 and fewer than " +
                                                 std::to_string(max_model_len) + " tokens, received " +
                                                 std::to_string(prompt_len));
  }
  const SamplingParams& params = request.sampling_params;
  if (params.n < 1) {
    throw Error(ErrorCode::kInvalidArgument, "n must be at least 1, received " + std::to_string(params.n));
  }
  if (params.max_tokens < 1) {
    throw Error(ErrorCode::kInvalidArgument,
                "max_tokens must be at least 1, received " + std::to_string(params.max_tokens));
  }
}

int Sequence::num_generated_tokens() const { return static_cast<int>(token_ids.size()) - request->prompt_len; }

Sequence& RequestState::AddSequence(SequenceId id) {
  auto sequence = std::make_unique<Sequence>();
  sequence->id = id;
  sequence->request = this;
  sequence->order = order;
  sequence->order.index = num_open_sequences++;
  sequences.push_back(std::move(sequence));
  return *sequences.back();
}

bool EndsByLength(const Sequence& sequence, int num_generated, int max_model_len) {
  const RequestState& request = *sequence.request;
  return num_generated >= request.request.sampling_params.max_tokens ||
         request.prompt_len + num_generated >= max_model_len;
}

StopVerdict CheckStop(const Sequence& sequence, int max_model_len) {
  const Request& request = sequence.request->request;
  const SamplingParams& params = request.sampling_params;
  const int num_generated = sequence.num_generated_tokens();
  const bool may_stop = num_generated >= params.min_tokens;
  if (may_stop) {
    const StopVerdict verdict = CheckStopTokens(request, sequence.token_ids.back());
    if (verdict.reason != FinishReason::kNone) return verdict;
  }
  if (EndsByLength(sequence, num_generated, max_model_len)) return {.reason = FinishReason::kLength};
  if (may_stop && params.repetition_detection.max_pattern_size > 0) {
    const std::span<const int32_t> generated(sequence.token_ids.data() + sequence.request->prompt_len,
                                             static_cast<size_t>(num_generated));
    if (HasRepetition(generated, params.repetition_detection)) {
      return {.reason = FinishReason::kStop, .by_repetition = true};
    }
  }
  return {};
}

bool MayReadPrefixCache(const Sequence& sequence) {
  const SamplingParams& params = sequence.request->request.sampling_params;
  if (params.skip_reading_prefix_cache) return false;
  const bool gives_prompt_logprobs = sequence.order.index == 0 && params.prompt_logprobs >= 0;
  return !gives_prompt_logprobs || sequence.num_prompt_logprobs == sequence.request->prompt_len - 1;
}

OptionalLogprobs TakeNewPromptLogprobs(OptionalLogprobs rows, int begin, Sequence& sequence) {
  if (rows == nullptr) return nullptr;
  const int skipped = std::clamp(sequence.num_prompt_logprobs - begin, 0, rows->size());
  if (skipped == rows->size()) return nullptr;
  sequence.num_prompt_logprobs = begin + rows->size();
  const std::ptrdiff_t skipped_ids = std::ptrdiff_t{skipped} * (rows->k + 1);
  rows->token_ids.erase(rows->token_ids.begin(), rows->token_ids.begin() + skipped_ids);
  rows->logprobs.erase(rows->logprobs.begin(), rows->logprobs.begin() + skipped_ids);
  rows->ranks.erase(rows->ranks.begin(), rows->ranks.begin() + skipped);
  return rows;
}

}  // namespace heddle
