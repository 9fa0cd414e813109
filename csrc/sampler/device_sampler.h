// The sampler of a GPU: the same rules as Sampler's, on the logits where they lie, so that only tokens and the
// log-probabilities asked for come to the host.
//
// A token equals the CPU's on the same logits, but where rounding in a sum decides. Rank thread only.
#pragma once

#include <array>
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

  struct Limits {
    int max_rows = 0;       // of a step
    int max_model_len = 0;  // of a sequence
    int vocab_size = 0;
  };

  // `token_ids` [max_rows], in device memory, gets each launch's tokens for the next step. Everything given outlives
  // this.
  DeviceSampler(CudaStream& stream, const Limits& limits, int32_t* token_ids);

  // Whether the device can list so many log-probabilities of a row.
  static bool Lists(int num_logprobs) { return num_logprobs <= HEDDLE_CUDA_MAX_LOGPROBS; }

  // Launches what gives one token a row of `logits` [num_rows, vocab_size], and returns a name for the launch. What the
  // launch before the last gave is lost. REQUIRES: Lists(), for every row; the device has done that launch.
  size_t Launch(const TensorView& logits, std::span<const Row> rows);

  // The same in three parts for plain rows, so that the second can be captured and replayed: Upload, SamplePlain of as
  // many rows, Fetch. Rows that nobody takes are added up to `num_rows`.
  void Upload(std::span<const Row> rows, size_t num_rows);
  void SamplePlain(const TensorView& logits) const;
  size_t Fetch();

  // Whether the row needs nothing but its own parameters.
  static bool IsPlain(const Row& row);

  // Takes row `i` of a launch into `out`, as Sampler::Sample and AppendLogprobs do. REQUIRES: the device has done it.
  void Take(size_t launch, size_t i, SequenceOutput& out) const;

  // Device memory that the constructor and the largest steps take, the latter when there is one with penalties or
  // log-probabilities. Lists of token ids come on top.
  static int64_t DeviceBytes(const Limits& limits);

 private:
  // Page-locked memory of the host.
  struct Pinned {
    std::shared_ptr<void> data;
    size_t bytes = 0;
  };

  // What one launch takes from the host and brings back to it.
  struct Exchange {
    Pinned rows;    // HeddleCudaSampleRow
    Pinned lists;   // what these refer to
    Pinned tokens;  // HeddleCudaSampledToken a row
    Pinned best;    // max_logprobs ids a row, then as many log-probabilities
    std::vector<int> num_logprobs;
    std::vector<bool> is_given;
    int max_logprobs = -1;
    bool has_rules = false;  // some row has some of its own
  };

  Exchange& NextExchange() { return exchanges_[num_launched_ % exchanges_.size()]; }
  void AddLists(const Row& row, HeddleCudaSampleRow& out);
  // Describes `rows` in the exchange, and lists in the vectors below.
  void Describe(std::span<const Row> rows, Exchange& exchange);
  // An op on the exchange's rows, without their lists.
  HeddleCudaSample OpOn(const TensorView& logits) const;
  void UploadLists(Exchange& exchange, HeddleCudaSample& op);
  void Reserve(Pinned& pinned, size_t bytes);

  CudaStream& stream_;
  const Limits limits_;
  int32_t* const token_ids_;
  std::vector<int32_t> ids_;      // allowed, banned
  std::vector<int32_t> history_;  // of rows with penalties, each with room for the token sampled
  std::vector<int32_t> bias_ids_;
  std::vector<float> biases_;

  // The device's side of an exchange: launches follow each other there.
  std::shared_ptr<void> device_rows_;
  std::shared_ptr<void> device_lists_;
  size_t device_lists_bytes_ = 0;
  std::shared_ptr<void> device_tokens_;
  std::shared_ptr<void> device_best_;

  std::array<Exchange, 2> exchanges_;  // of the last two launches
  size_t num_launched_ = 0;
};

}  // namespace heddle
