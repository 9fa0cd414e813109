// A request and its sequences, as the scheduler sees them. Engine thread only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model_output.h"
#include "core/sampling_params.h"
#include "core/scheduler_output.h"

namespace heddle {

// Names a request for its whole life; made by the engine, never by a client, never reused.
using RequestId = uint64_t;

enum class FinishReason { kNone, kStop, kLength, kAbort, kError };

// What the engine hands to the scheduler.
struct Request {
  RequestId id = 0;
  std::vector<int32_t> prompt_token_ids;  // at least one, fewer than max_model_len
  SamplingParams sampling_params;
  std::vector<int32_t> eos_token_ids;
  int priority = 0;        // lower runs first, under SchedulingPolicy::kPriority
  std::string cache_salt;  // requests share cached prefixes only with others of the same salt
};

// What one step gave one sequence: the part of ModelOutput that survives, with the scheduler's verdict.
struct SequenceUpdate {
  RequestId request_id = 0;
  SequenceId sequence_id = 0;
  int sequence_index = 0;
  bool sampled = false;  // false: only prompt log-probabilities arrived, or the sequence ended without a token
  int32_t token_id = 0;
  float logprob = 0;
  int num_generated_tokens = 0;  // including this one
  int num_cached_tokens = 0;     // prompt tokens that a prefix hit spared, of its first admission
  OptionalLogprobs logprobs;
  OptionalLogprobs prompt_logprobs;
  FinishReason finish_reason = FinishReason::kNone;
  SequenceFailure failure = SequenceFailure::kNone;  // with kError
  int32_t stop_token_id = -1;                        // the stop or end-of-sequence id that ended it
  bool stopped_by_eos = false;                       // stop_token_id is an end of sequence that nobody listed
  bool stopped_by_repetition = false;
};

}  // namespace heddle
