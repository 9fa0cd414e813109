// What a rank remembers of one sequence between steps.
#pragma once

#include <unordered_map>
#include <vector>

#include "core/scheduler_output.h"

namespace heddle {

struct SequenceState {
  std::vector<int32_t> token_ids;  // prompt, then generated
  int num_pending_tokens = 0;      // after these: 1 where the step before sampled one that ranks were not told yet
  int pending_row = 0;             // where on the device that lies
  int prompt_len = 0;
  int sequence_index = 0;
  SamplingParams sampling_params;
  std::vector<int32_t> block_ids;
  int num_computed_tokens = 0;
};

// Follows the scheduler's differences. Ranks hold equal tables.
class SequenceTable {
 public:
  // Brings the table up to `step`, and puts the states of its sequences into `scheduled`, in their order; valid until
  // the next call.
  void Apply(const SchedulerOutput& step, std::vector<SequenceState*>& scheduled);

 private:
  std::unordered_map<SequenceId, SequenceState> states_;
};

}  // namespace heddle
