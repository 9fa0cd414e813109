// What a step gave: sampled tokens and the log-probabilities asked for. Plain data.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "core/scheduler_output.h"

namespace heddle {

// Log-probabilities of n tokens. Row i: the chosen or given token, then the k best, in descending order.
struct LogprobsData {
  int k = 0;
  std::vector<int32_t> token_ids;  // [n, k + 1]
  std::vector<float> logprobs;     // [n, k + 1] natural logarithms of the model's own distribution, before any
                                   // penalty, bias or temperature
  std::vector<int32_t> ranks;      // [n] of the chosen token, 1 = the best

  int size() const { return static_cast<int>(ranks.size()); }
  // REQUIRES: the same k in all rows.
  void Append(LogprobsData other) {
    if (size() == 0) {
      *this = std::move(other);
      return;
    }
    HEDDLE_CHECK(k == other.k, std::to_string(k) + " and " + std::to_string(other.k));
    token_ids.insert(token_ids.end(), other.token_ids.begin(), other.token_ids.end());
    logprobs.insert(logprobs.end(), other.logprobs.begin(), other.logprobs.end());
    ranks.insert(ranks.end(), other.ranks.begin(), other.ranks.end());
  }
};

// Null where nobody asked for any, as hardly anybody does: what a step carries for each sequence is small.
using OptionalLogprobs = std::unique_ptr<LogprobsData>;

inline void AppendLogprobs(OptionalLogprobs& to, LogprobsData&& rows) {
  if (to == nullptr) to = std::make_unique<LogprobsData>();
  to->Append(std::move(rows));
}

inline void AppendLogprobs(OptionalLogprobs& to, OptionalLogprobs rows) {
  if (to == nullptr) {
    to = std::move(rows);
  } else if (rows != nullptr) {
    to->Append(std::move(*rows));
  }
}

// Why a sequence can have no next token.
enum class SequenceFailure {
  kNone,
  kInvalidLogits,   // the logits hold a NaN or +inf, or nothing finite
  kNoTokenAllowed,  // the request's own rules (allowed ids, bad words, minimum length) leave no token
};

struct SequenceOutput {
  SequenceId id = 0;
  bool sampled = false;  // token_id is the next token
  int32_t token_id = 0;
  float logprob = 0;  // of token_id, from the model's own distribution
  SequenceFailure failure = SequenceFailure::kNone;
  OptionalLogprobs logprobs;         // one row when asked for
  OptionalLogprobs prompt_logprobs;  // rows of prompt tokens that this step predicted
};

struct ModelOutput {
  std::vector<SequenceOutput> sequences;  // in the order of SchedulerOutput::scheduled
};

}  // namespace heddle
