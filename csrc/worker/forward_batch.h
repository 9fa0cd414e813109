// The tokens of one step laid out for the model: flat arrays over all scheduled sequences.
//
// Rank thread only; buffers are kept between steps.
#pragma once

#include <vector>

#include "layers/context.h"
#include "worker/sequence_state.h"

namespace heddle {

class ForwardBatch {
 public:
  // REQUIRES: `sequences` has applied `step`.
  void Build(const SchedulerOutput& step, const SequenceTable& sequences, int block_size);

  std::span<const int32_t> token_ids() const { return token_ids_; }
  std::span<const int32_t> positions() const { return positions_; }
  std::span<const int64_t> slot_mapping() const { return slot_mapping_; }
  ops::AttentionMetadata attention() const { return {query_start_loc_, seq_lens_, block_table_, max_blocks_per_seq_}; }
  // Row of sequence `i`'s first token in the step.
  int first_row(size_t i) const { return query_start_loc_[i]; }

 private:
  std::vector<int32_t> token_ids_;
  std::vector<int32_t> positions_;
  std::vector<int64_t> slot_mapping_;
  std::vector<int32_t> query_start_loc_;
  std::vector<int32_t> seq_lens_;
  std::vector<int32_t> block_table_;
  int max_blocks_per_seq_ = 0;
};

}  // namespace heddle
