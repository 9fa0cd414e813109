// What the scheduler tells every rank to compute in one step. Plain data: the same bytes whether a rank is a thread or
// a process. Only differences are sent: a rank remembers each request's tokens, blocks and parameters.
#pragma once

#include <cstdint>
#include <vector>

#include "core/sampling_params.h"

namespace heddle {

// Names one sequence for its whole life; never reused by an engine.
using SequenceId = uint64_t;

// A sequence that ranks see for the first time, or again after a preemption.
struct NewSequenceData {
  SequenceId id = 0;
  uint64_t request_id = 0;         // whose sequence it is; ranks do not care
  std::vector<int32_t> token_ids;  // prompt, then anything generated before a preemption
  int prompt_len = 0;
  int sequence_index = 0;  // which of the n sequences of its request: keys the random numbers
  SamplingParams sampling_params;
  std::vector<int32_t> block_ids;
  int num_computed_tokens = 0;  // already in the cache
};

// A sequence that ranks know.
struct CachedSequenceData {
  SequenceId id = 0;
  int num_new_tokens = 0;  // that ranks do not know yet; the last one to compute may be pending: the step before
                           // samples it
  int num_new_blocks = 0;
  int num_computed_tokens = 0;
};

struct ScheduledSequence {
  SequenceId id = 0;
  int num_scheduled_tokens = 0;
  bool samples = false;  // the step reaches its last token, so a next token is sampled
};

struct SchedulerOutput {
  std::vector<NewSequenceData> new_sequences;
  std::vector<CachedSequenceData> cached_sequences;
  std::vector<int32_t> new_token_ids;        // of cached_sequences, one after another
  std::vector<int32_t> new_block_ids;        // the same
  std::vector<ScheduledSequence> scheduled;  // in batch order: cached_sequences, then new_sequences
  std::vector<SequenceId> finished;          // ended or preempted since the last step: forget them
  int total_num_scheduled_tokens = 0;

  bool empty() const { return scheduled.empty(); }
};

}  // namespace heddle
