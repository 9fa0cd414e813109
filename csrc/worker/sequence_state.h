// What a rank remembers of one sequence between steps.
#pragma once

#include <unordered_map>
#include <vector>

#include "core/scheduler_output.h"

namespace heddle {

struct SequenceState {
  std::vector<int32_t> token_ids;  // prompt, then generated
  int prompt_len = 0;
  int sequence_index = 0;
  SamplingParams sampling_params;
  std::vector<int32_t> block_ids;
  int num_computed_tokens = 0;
};

// Follows the scheduler's differences: after Apply, the states are those the step is about. Ranks hold equal tables.
class SequenceTable {
 public:
  void Apply(const SchedulerOutput& step);
  const SequenceState& at(SequenceId id) const;

 private:
  std::unordered_map<SequenceId, SequenceState> states_;
};

}  // namespace heddle
