// The sampler of a GPU: the same rules as Sampler's, on the logits where they lie, so that only tokens and the
// log-probabilities asked for come to the host.
//
// A token equals the CPU's on the same logits, but where rounding in a sum decides. Rank thread only.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/model_output.h"
#include "device/cuda_stream.h"
#include "sampler/sampling_input.h"
#include "tensor/tensor.h"

namespace heddle {

class DeviceSampler {
 public:
  // One row of logits and what is wanted of it.
  struct Row {
    SamplingInput input;
    int32_t given_token = -1;  // a prompt's token whose log-probability is wanted, or negative: sample
    int num_logprobs = -1;     // of the k best; negative: none
  };

  // For steps of at most `max_rows` rows. Everything given outlives this.
  DeviceSampler(CudaStream& stream, int max_rows, int vocab_size);

  // Whether the device can list so many log-probabilities of a row.
  static bool Lists(int num_logprobs) { return num_logprobs <= HEDDLE_CUDA_MAX_LOGPROBS; }

  // Launches what gives one token a row of `logits` [num_rows, vocab_size]. REQUIRES: Lists(), for every row; the rows
  // of the call before were taken.
  void Launch(const TensorView& logits, std::span<const Row> rows);

  // Takes row `i` into `out`, as Sampler::Sample and AppendLogprobs do. REQUIRES: the stream was waited for.
  void Take(size_t i, SequenceOutput& out) const;

  // Device memory that the constructor and the largest steps without lists take.
  static int64_t DeviceBytes(int max_rows);

 private:
  // Host memory that is brought to the device in one copy, grown as steps need it.
  struct Upload {
    std::shared_ptr<void> host;
    std::shared_ptr<void> device;
    size_t capacity = 0;
  };

  void AddLists(const Row& row, HeddleCudaSampleRow& out);
  void Reserve(size_t bytes);
  void ReserveLogprobs(int max_logprobs);

  CudaStream& stream_;
  int max_rows_;
  int vocab_size_;
  std::vector<HeddleCudaSampleRow> rows_;
  std::vector<int32_t> ids_;      // allowed, banned
  std::vector<int32_t> history_;  // of rows with penalties, each with room for the token sampled
  std::vector<int32_t> bias_ids_;
  std::vector<float> biases_;
  Upload upload_;

  // What comes back: tokens, then per row max_logprobs_ ids, then as many log-probabilities.
  std::vector<int> num_logprobs_;
  int max_logprobs_ = -1;  // of the last launch
  int logprobs_capacity_ = 0;
  std::shared_ptr<void> device_tokens_;
  std::shared_ptr<void> host_tokens_;
  std::shared_ptr<void> next_token_ids_;
  std::shared_ptr<void> device_best_;
  std::shared_ptr<void> host_best_;
};

}  // namespace heddle
