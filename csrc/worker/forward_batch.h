// The tokens of one step laid out for the model: flat arrays over all scheduled sequences, in the memory of the
// stream's device.
//
// Rank thread only; buffers are kept between steps.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "device/stream.h"
#include "layers/context.h"
#include "worker/sequence_state.h"

namespace heddle {

class ForwardBatch {
 public:
  // The largest step.
  struct Limits {
    int max_num_tokens = 0;
    int max_num_seqs = 0;
    int max_blocks_per_seq = 0;
    int block_size = 0;
  };

  ForwardBatch(Stream& stream, const Limits& limits);

  // Lays out a step of sequences in these states. A GPU waits for nothing: what it reads of the step before is kept
  // until it is done.
  void Build(const SchedulerOutput& step, std::span<const SequenceState* const> states);
  // Names the rows of hidden states that ComputeLogits is to see.
  void SetLogitsRows(std::vector<int32_t> rows) { logits_rows_.values = std::move(rows); }
  // Brings the arrays to the device, in one copy: on CPU they are there already. Sequences of no tokens are added up to
  // `num_seqs`, each with a token of its own that is not stored. REQUIRES: the device has done the step before the
  // last.
  void Upload(size_t num_seqs = 0);
  // Takes pending tokens from `sampled_ids` on the device. What it launches follows from the number of tokens alone.
  void FillPending(const int32_t* sampled_ids);
  bool has_pending_tokens() const { return has_pending_tokens_; }

  std::span<const int32_t> token_ids() const { return token_ids_.span(); }
  std::span<const int32_t> positions() const { return positions_.span(); }
  std::span<const int64_t> slot_mapping() const { return slot_mapping_.span(); }
  std::span<const int32_t> logits_rows() const { return logits_rows_.span(); }
  ops::AttentionMetadata attention() const {
    return {query_start_loc_.span(), seq_lens_.span(), block_table_.span(),
            max_blocks_per_seq_,     max_query_len_,   max_seq_len_};
  }
  int num_positions() const { return max_seq_len_; }
  int num_seqs() const { return static_cast<int>(seq_lens_.values.size()); }
  int max_query_len() const { return max_query_len_; }
  // Row of sequence `i`'s first token in the step.
  int first_row(size_t i) const { return query_start_loc_.values[i]; }

  // Device memory that the arrays take, and twice as much page-locked memory of the host.
  static int64_t DeviceBytes(const Limits& limits);

 private:
  template <typename T>
  struct Array {
    std::vector<T> values;
    const T* device = nullptr;  // where the GPU has them
    std::span<const T> span() const { return {device != nullptr ? device : values.data(), values.size()}; }
  };

  void Pad(size_t num_seqs);

  Stream& stream_;
  Limits limits_;
  Array<int32_t> token_ids_;
  Array<int32_t> positions_;
  Array<int64_t> slot_mapping_;
  Array<int32_t> query_start_loc_;
  Array<int32_t> seq_lens_;
  Array<int32_t> logits_rows_;
  Array<int32_t> block_table_;
  int max_blocks_per_seq_ = 0;
  int max_query_len_ = 0;
  int max_seq_len_ = 0;
  bool has_pending_tokens_ = false;

  // On a GPU.
  std::array<std::shared_ptr<void>, 2> staging_;  // page-locked; of the last two steps, in turns
  size_t num_uploads_ = 0;
  std::shared_ptr<void> device_;
};

}  // namespace heddle
