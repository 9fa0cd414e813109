// What the engine gives its owner. Plain data.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/model_output.h"
#include "engine/engine_failure.h"
#include "scheduler/request.h"

namespace heddle {

// What an ending says beside its reason.
struct EndDetail {
  // At most one of these, with kStop.
  std::optional<std::string> stop_string;
  std::optional<int32_t> stop_token_id;
  bool stopped_by_repetition = false;
  std::optional<EngineFailure> error;  // with kError
};

// What one sequence gained since its last delta. Small, since every sequence has one in every step: what few have lies
// elsewhere.
struct SequenceDelta {
  RequestId request_id = 0;
  int index = 0;
  int num_tokens = 0;                    // of EngineOutput::token_ids, after those of the deltas before
  std::string text;                      // whole UTF-8 characters
  double logprob = 0;                    // sum over its tokens
  OptionalLogprobs logprobs;             // when asked for
  OptionalLogprobs prompt_logprobs;      // on the first delta of sequence 0, when asked for
  std::optional<int> num_cached_tokens;  // on the first delta of sequence 0
  FinishReason finish_reason = FinishReason::kNone;
  std::unique_ptr<EndDetail> end;  // with a finish_reason
};

// Everything since the last callback.
struct EngineOutput {
  std::vector<SequenceDelta> deltas;
  std::vector<int32_t> token_ids;    // of all deltas, one after another
  std::vector<RequestId> started;    // requests that a step worked on for the first time
  std::vector<double> step_seconds;  // one entry a step
  std::vector<int32_t> step_tokens;
  std::optional<EngineFailure> failure;

  bool empty() const { return deltas.empty() && started.empty() && step_seconds.empty() && !failure; }
};

}  // namespace heddle
