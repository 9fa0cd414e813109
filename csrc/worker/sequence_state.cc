#include "worker/sequence_state.h"

#include <algorithm>

#include "base/error.h"

namespace heddle {

void SequenceTable::Apply(const SchedulerOutput& step, std::vector<SequenceState*>& scheduled) {
  for (SequenceId id : step.finished) states_.erase(id);
  scheduled.clear();
  auto new_token = step.new_token_ids.begin();
  auto new_block = step.new_block_ids.begin();
  const auto schedule = [&](SequenceId id, SequenceState& state) {
    const size_t place = scheduled.size();
    HEDDLE_CHECK(place < step.scheduled.size() && step.scheduled[place].id == id, "sequence " + std::to_string(id));
    const int num_tokens = state.num_computed_tokens + step.scheduled[place].num_scheduled_tokens;
    state.num_pending_tokens = std::max(0, num_tokens - static_cast<int>(state.token_ids.size()));
    scheduled.push_back(&state);
  };
  for (const CachedSequenceData& sequence : step.cached_sequences) {
    const auto it = states_.find(sequence.id);
    HEDDLE_CHECK(it != states_.end(), "sequence " + std::to_string(sequence.id));
    HEDDLE_CHECK(sequence.num_new_tokens <= step.new_token_ids.end() - new_token &&
                     sequence.num_new_blocks <= step.new_block_ids.end() - new_block,
                 "sequence " + std::to_string(sequence.id));
    SequenceState& state = it->second;
    state.token_ids.insert(state.token_ids.end(), new_token, new_token + sequence.num_new_tokens);
    state.block_ids.insert(state.block_ids.end(), new_block, new_block + sequence.num_new_blocks);
    state.num_computed_tokens = sequence.num_computed_tokens;
    new_token += sequence.num_new_tokens;
    new_block += sequence.num_new_blocks;
    schedule(sequence.id, state);
  }
  for (const NewSequenceData& sequence : step.new_sequences) {
    SequenceState& state = states_[sequence.id];
    state = {.token_ids = sequence.token_ids,
             .prompt_len = sequence.prompt_len,
             .sequence_index = sequence.sequence_index,
             .sampling_params = sequence.sampling_params,
             .block_ids = sequence.block_ids,
             .num_computed_tokens = sequence.num_computed_tokens};
    schedule(sequence.id, state);
  }
  HEDDLE_CHECK(scheduled.size() == step.scheduled.size(), "sequences that are neither cached nor new");
  HEDDLE_CHECK(new_token == step.new_token_ids.end() && new_block == step.new_block_ids.end(), "of no sequence");
}

}  // namespace heddle
