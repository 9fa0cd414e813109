// What the scheduler remembers of a request and of each of its sequences. Engine thread only.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "scheduler/kv_cache_manager.h"
#include "scheduler/request.h"

namespace heddle {

struct RequestState;

// Who comes first: the smaller. Fixed for life, so a preempted sequence returns to its old place in the line.
struct SequenceOrder {
  int priority = 0;  // the same for all under kFcfs
  uint64_t arrival = 0;
  int index = 0;
  auto operator<=>(const SequenceOrder&) const = default;
};

enum class SequenceStatus {
  kAwaitingPrompt,  // a fork whose prompt another sequence computes
  kWaiting,         // could be admitted; ranks do not know it
  kRunning,         // ranks know it
};

struct Sequence {
  SequenceId id = 0;
  RequestState* request = nullptr;
  SequenceOrder order;
  SequenceStatus status = SequenceStatus::kAwaitingPrompt;
  std::vector<int32_t> token_ids;  // prompt, then generated; empty while kAwaitingPrompt
  BlockTable blocks;
  int num_computed_tokens = 0;  // their keys and values lie in blocks once the steps under way are done
  int num_settled_tokens = 0;   // of these, whose steps were taken in; of a preempted one, before
  int num_steps_under_way = 0;  // that compute some of its tokens
  int num_pending_tokens = 0;   // that these steps sample, to come after token_ids
  int num_sent_tokens = 0;      // ranks have these, while kRunning
  int num_sent_blocks = 0;
  int num_prompt_logprobs = 0;  // rows delivered; survives preemption, so that none comes twice

  int num_tokens() const { return static_cast<int>(token_ids.size()) + num_pending_tokens; }
  int num_generated_tokens() const;  // known ones
};

struct RequestState {
  Request request;  // prompt_token_ids stay only while forks need them
  int prompt_len = 0;
  SequenceOrder order;                               // of sequence 0
  std::vector<std::unique_ptr<Sequence>> sequences;  // by index; null once ended
  int num_open_sequences = 0;
  bool paused = false;
  bool started = false;          // one of the sequences was admitted
  bool prompt_computed = false;  // forks wait for no one any more
  int num_cached_tokens = 0;     // prompt tokens that the first admission found cached

  // The next of the request's sequences, awaiting its prompt.
  Sequence& AddSequence(SequenceId id);
};

// Fails with kInvalidArgument when the prompt is empty or leaves no room in max_model_len, or when n or max_tokens is
// not positive.
void ValidateRequest(const Request& request, int max_model_len);

// Whether so many generated tokens end the sequence, whatever they are.
bool EndsByLength(const Sequence& sequence, int num_generated, int max_model_len);

// Whether the sequence's last token ends it. Asked once for each generated token, after it was appended.
struct StopVerdict {
  FinishReason reason = FinishReason::kNone;
  int32_t stop_token_id = -1;
  bool by_eos = false;
  bool by_repetition = false;
};
StopVerdict CheckStop(const Sequence& sequence, int max_model_len);

// May the sequence skip tokens whose keys and values are cached? Not where the caller forbids it, nor where computing
// them gives prompt log-probabilities that are still owed.
bool MayReadPrefixCache(const Sequence& sequence);

// Takes the rows that the sequence has not delivered yet out of those of a step that began at prompt position `begin`,
// and counts them as delivered. Null where there are none.
OptionalLogprobs TakeNewPromptLogprobs(OptionalLogprobs rows, int begin, Sequence& sequence);

}  // namespace heddle
