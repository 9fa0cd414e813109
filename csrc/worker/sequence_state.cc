#include "worker/sequence_state.h"

#include <algorithm>

#include "base/error.h"

namespace heddle {

void SequenceTable::Apply(const SchedulerOutput& step, std::vector<SequenceState*>& scheduled) {
  for (SequenceId id : step.finished) states_.erase(id);
  for (const NewSequenceData& sequence : step.new_sequences) {
    states_[sequence.id] = {.token_ids = sequence.token_ids,
                            .prompt_len = sequence.prompt_len,
                            .sequence_index = sequence.sequence_index,
                            .sampling_params = sequence.sampling_params,
                            .block_ids = sequence.block_ids,
                            .num_computed_tokens = sequence.num_computed_tokens};
  }
  for (const CachedSequenceData& sequence : step.cached_sequences) {
    const auto it = states_.find(sequence.id);
    HEDDLE_CHECK(it != states_.end(), "sequence " + std::to_string(sequence.id));
    SequenceState& state = it->second;
    state.token_ids.insert(state.token_ids.end(), sequence.new_token_ids.begin(), sequence.new_token_ids.end());
    state.block_ids.insert(state.block_ids.end(), sequence.new_block_ids.begin(), sequence.new_block_ids.end());
    state.num_computed_tokens = sequence.num_computed_tokens;
  }
  scheduled.clear();
  for (const ScheduledSequence& sequence : step.scheduled) {
    const auto it = states_.find(sequence.id);
    HEDDLE_CHECK(it != states_.end(), "sequence " + std::to_string(sequence.id));
    SequenceState& state = it->second;
    const int num_tokens = state.num_computed_tokens + sequence.num_scheduled_tokens;
    state.num_pending_tokens = std::max(0, num_tokens - static_cast<int>(state.token_ids.size()));
    scheduled.push_back(&state);
  }
}

}  // namespace heddle
