#include "worker/sequence_state.h"

#include "base/error.h"

namespace heddle {

void SequenceTable::Apply(const SchedulerOutput& step) {
  for (SequenceId id : step.finished) states_.erase(id);
  for (const NewSequenceData& sequence : step.new_sequences) {
    states_[sequence.id] = {sequence.token_ids,       sequence.prompt_len, sequence.sequence_index,
                            sequence.sampling_params, sequence.block_ids,  sequence.num_computed_tokens};
  }
  for (const CachedSequenceData& sequence : step.cached_sequences) {
    const auto it = states_.find(sequence.id);
    HEDDLE_CHECK(it != states_.end(), "sequence " + std::to_string(sequence.id));
    SequenceState& state = it->second;
    state.token_ids.insert(state.token_ids.end(), sequence.new_token_ids.begin(), sequence.new_token_ids.end());
    state.block_ids.insert(state.block_ids.end(), sequence.new_block_ids.begin(), sequence.new_block_ids.end());
    state.num_computed_tokens = sequence.num_computed_tokens;
  }
}

const SequenceState& SequenceTable::at(SequenceId id) const {
  const auto it = states_.find(id);
  HEDDLE_CHECK(it != states_.end(), "sequence " + std::to_string(id));
  return it->second;
}

}  // namespace heddle
