#include "worker/forward_batch.h"

#include <algorithm>
#include <bit>

#include "device/staged_arrays.h"

namespace heddle {

ForwardBatch::ForwardBatch(Stream& stream, const Limits& limits) : stream_(stream), limits_(limits) {
  CudaStream* const cuda = stream.cuda();
  if (cuda == nullptr) return;
  const auto bytes = static_cast<size_t>(DeviceBytes(limits));
  for (std::shared_ptr<void>& staging : staging_) staging = cuda->AllocatePinned(bytes);
  device_ = cuda->Allocate(bytes);
}

int64_t ForwardBatch::DeviceBytes(const Limits& limits) {
  const auto tokens = static_cast<size_t>(std::max(limits.max_num_tokens, limits.max_num_seqs));
  const auto seqs = static_cast<size_t>(limits.max_num_seqs);
  const size_t blocks = std::bit_ceil(static_cast<uint32_t>(limits.max_blocks_per_seq));
  const auto ints = [](size_t count) { return StagedArrays::BytesOf(count, sizeof(int32_t)); };
  return static_cast<int64_t>(StagedArrays::BytesOf(tokens, sizeof(int64_t)) + 3 * ints(tokens) + ints(seqs + 1) +
                              ints(seqs) + ints(seqs * blocks));
}

void ForwardBatch::Build(const SchedulerOutput& step, std::span<const SequenceState* const> states) {
  token_ids_.values.clear();
  positions_.values.clear();
  slot_mapping_.values.clear();
  query_start_loc_.values.assign(1, 0);
  seq_lens_.values.clear();
  logits_rows_.values.clear();

  max_query_len_ = 0;
  max_seq_len_ = 0;
  max_blocks_per_seq_ = 0;
  has_pending_tokens_ = false;
  for (const SequenceState* state : states) {
    max_blocks_per_seq_ = std::max(max_blocks_per_seq_, static_cast<int>(state->block_ids.size()));
  }
  // On a GPU few different widths, since a captured graph is of one.
  if (device_ != nullptr) {
    max_blocks_per_seq_ = static_cast<int>(std::bit_ceil(static_cast<uint32_t>(max_blocks_per_seq_)));
  }
  const auto width = static_cast<size_t>(max_blocks_per_seq_);
  block_table_.values.assign(step.scheduled.size() * width, 0);

  const int block_size = limits_.block_size;
  for (size_t s = 0; s < step.scheduled.size(); ++s) {
    const ScheduledSequence& scheduled = step.scheduled[s];
    const SequenceState& state = *states[s];
    const int end = state.num_computed_tokens + scheduled.num_scheduled_tokens;
    const auto num_known = static_cast<int>(state.token_ids.size());
    HEDDLE_CHECK(state.num_pending_tokens <= 1, "scheduled beyond the tokens there are");
    HEDDLE_CHECK(end <= static_cast<int>(state.block_ids.size()) * block_size, "scheduled beyond the blocks");
    for (int position = state.num_computed_tokens; position < end; ++position) {
      // A pending token is named by its row, as the device's fill_sampled takes it.
      const bool is_pending = position == num_known;
      token_ids_.values.push_back(is_pending ? -1 - state.pending_row : state.token_ids[static_cast<size_t>(position)]);
      has_pending_tokens_ = has_pending_tokens_ || is_pending;
      positions_.values.push_back(position);
      const int32_t block = state.block_ids[static_cast<size_t>(position / block_size)];
      slot_mapping_.values.push_back(int64_t{block} * block_size + position % block_size);
    }
    query_start_loc_.values.push_back(static_cast<int32_t>(token_ids_.values.size()));
    seq_lens_.values.push_back(end);
    max_query_len_ = std::max(max_query_len_, scheduled.num_scheduled_tokens);
    max_seq_len_ = std::max(max_seq_len_, end);
    std::copy(state.block_ids.begin(), state.block_ids.end(),
              block_table_.values.begin() + static_cast<ptrdiff_t>(s * width));
  }
}

void ForwardBatch::Pad(size_t num_seqs) {
  for (size_t s = seq_lens_.values.size(); s < num_seqs; ++s) {
    token_ids_.values.push_back(0);
    positions_.values.push_back(0);
    slot_mapping_.values.push_back(-1);
    query_start_loc_.values.push_back(static_cast<int32_t>(token_ids_.values.size()));
    seq_lens_.values.push_back(0);
  }
  block_table_.values.resize(seq_lens_.values.size() * static_cast<size_t>(max_blocks_per_seq_), 0);
}

void ForwardBatch::Upload(size_t num_seqs) {
  if (device_ == nullptr) return;
  Pad(num_seqs);
  StagedArrays staged(staging_[num_uploads_++ % staging_.size()].get(), device_.get());
  const auto put = [&staged](auto& array) { array.device = staged.Put(array.values); };
  put(slot_mapping_);
  put(token_ids_);
  put(positions_);
  put(query_start_loc_);
  put(seq_lens_);
  put(logits_rows_);
  put(block_table_);
  HEDDLE_CHECK(staged.bytes() <= static_cast<size_t>(DeviceBytes(limits_)), std::to_string(staged.bytes()));
  staged.Copy(*stream_.cuda());
}

void ForwardBatch::FillPending(const int32_t* sampled_ids) {
  auto* const token_ids = const_cast<int32_t*>(token_ids_.device);
  CheckCuda(CudaApi().fill_sampled(stream_.cuda()->get(), token_ids, std::ssize(token_ids_.values), sampled_ids));
}

}  // namespace heddle
