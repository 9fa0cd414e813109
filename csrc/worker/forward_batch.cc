#include "worker/forward_batch.h"

#include <algorithm>

namespace heddle {

void ForwardBatch::Build(const SchedulerOutput& step, const SequenceTable& sequences, int block_size) {
  token_ids_.clear();
  positions_.clear();
  slot_mapping_.clear();
  query_start_loc_.assign(1, 0);
  seq_lens_.clear();

  max_blocks_per_seq_ = 0;
  for (const ScheduledSequence& scheduled : step.scheduled) {
    const int blocks = static_cast<int>(sequences.at(scheduled.id).block_ids.size());
    max_blocks_per_seq_ = std::max(max_blocks_per_seq_, blocks);
  }
  block_table_.assign(step.scheduled.size() * static_cast<size_t>(max_blocks_per_seq_), 0);

  for (size_t s = 0; s < step.scheduled.size(); ++s) {
    const ScheduledSequence& scheduled = step.scheduled[s];
    const SequenceState& state = sequences.at(scheduled.id);
    const int end = state.num_computed_tokens + scheduled.num_scheduled_tokens;
    HEDDLE_CHECK(end <= static_cast<int>(state.token_ids.size()), "scheduled beyond the known tokens");
    HEDDLE_CHECK(end <= static_cast<int>(state.block_ids.size()) * block_size, "scheduled beyond the blocks");
    for (int position = state.num_computed_tokens; position < end; ++position) {
      token_ids_.push_back(state.token_ids[static_cast<size_t>(position)]);
      positions_.push_back(position);
      const int32_t block = state.block_ids[static_cast<size_t>(position / block_size)];
      slot_mapping_.push_back(int64_t{block} * block_size + position % block_size);
    }
    query_start_loc_.push_back(static_cast<int32_t>(token_ids_.size()));
    seq_lens_.push_back(end);
    std::copy(state.block_ids.begin(), state.block_ids.end(),
              block_table_.begin() + static_cast<ptrdiff_t>(s * static_cast<size_t>(max_blocks_per_seq_)));
  }
}

}  // namespace heddle
