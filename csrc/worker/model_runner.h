// Runs the steps of one rank: batch, model, logits, sampling.
//
// Every rank computes the same batch on its shard; rank 0 gathers the logits and samples. Rank thread only.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "core/engine_config.h"
#include "core/model_config.h"
#include "core/model_output.h"
#include "models/causal_lm.h"
#include "sampler/device_sampler.h"
#include "sampler/sampler.h"
#include "worker/decode_graphs.h"
#include "worker/forward_batch.h"
#include "worker/step_clock.h"

namespace heddle {

class ModelRunner {
 public:
  struct Options {
    int max_num_seqs = 0;
    int max_num_batched_tokens = 0;
    int block_size = 0;
    int max_model_len = 0;
    DeviceType device = DeviceType::kCpu;
  };

  // Everything given outlives this. Reserves the activations of the largest step.
  ModelRunner(const ModelConfig& config, const Options& options, const TensorParallel& tp, Stream& stream,
              const CausalLM& model, KVCache& kv_cache, DType activation_dtype, int64_t activation_bytes_per_token,
              const std::atomic<bool>& cancelled);

  ~ModelRunner();  // waits for the device

  // Begins a step: on CPU computes it, on a GPU launches it and returns. Fails with kCancelled, and as the communicator
  // does.
  void Submit(const SchedulerOutput& step);

  // On rank 0 only: the output of the oldest step that was submitted and not waited for, computed; one entry a
  // scheduled sequence. Fails as Submit does, and as `check`, which is called now and then while a GPU is waited for.
  ModelOutput Wait(const std::function<void()>& check);

  // Fails when the GPU of a rank other than 0 is lost. Any thread, while none is in Submit.
  void CheckDevice() const;

  // Of a GPU's rank 0, as StepClock has them; elsewhere zero.
  std::chrono::nanoseconds wait_time() const { return clock_ == nullptr ? kNoTime : clock_->wait_time(); }
  std::chrono::nanoseconds idle_time() const { return clock_ == nullptr ? kNoTime : clock_->idle_time(); }

  // Bytes that the constructor reserves on the device.
  static int64_t ActivationBytes(const ModelConfig& config, const Options& options, const TensorParallel& tp,
                                 DType activation_dtype, int64_t activation_bytes_per_token);

 private:
  static constexpr std::chrono::nanoseconds kNoTime{0};

  // A row of the final hidden states whose logits are wanted, and for what.
  struct LogitsRow {
    int row = 0;
    size_t output = 0;          // index into ModelOutput::sequences
    int num_logprobs = -1;      // wanted beside it
    int32_t prompt_token = -1;  // the prompt token it predicts, or -1: sample
  };

  struct StepUnderWay {
    ModelOutput output;
    std::vector<LogitsRow> rows;  // that the device samples and nobody took yet
    size_t launch = 0;            // of the device's sampler
  };

  std::vector<LogitsRow> SelectRows(const SchedulerOutput& step) const;
  ForwardContext Context();
  // A step in which every sequence has one token, and a row of logits for it: one graph, from taking pending tokens to
  // logits, or to sampling where all rows are plain.
  void Decode(std::span<const LogitsRow> rows);
  // Any step.
  void Compute(std::span<const LogitsRow> rows);
  // Rows [begin, end) of `rows`.
  void ComputeLogits(ForwardContext& context, const TensorView& hidden, std::span<const LogitsRow> rows, size_t begin,
                     size_t end);
  // The first `num_rows` rows of logits in host memory, computed.
  TensorView HostLogits(int64_t num_rows);
  // On rank 0: turns the logits of `rows` into outputs of the step submitted last, at once or when they are collected.
  void Sample(std::span<const LogitsRow> rows);
  static bool DeviceLists(std::span<const LogitsRow> rows);
  void LaunchSampling(std::span<const LogitsRow> rows);
  // The rows as the device's sampler takes them; valid until the next call.
  std::span<const DeviceSampler::Row> SampleRowsOf(std::span<const LogitsRow> rows);
  // Leaves what the device samples for the step's `rows` to Collect.
  void AwaitSampled(std::span<const LogitsRow> rows, size_t launch);
  // Takes what the device sampled for a step. REQUIRES: it has done so.
  void Collect(StepUnderWay& step);
  // Waits for all that was launched.
  void WaitForDevice();
  // On a GPU: leaves the tokens that a step samples in sampled_ids_ of every rank, for the step after it.
  void KeepSampled(std::span<const LogitsRow> rows);
  int32_t* SampledIds() const { return sampled_ids_.empty() ? nullptr : sampled_ids_.view().Data<int32_t>(); }
  SamplingInput InputOf(const SequenceState& state) const;
  void Consume(std::span<const LogitsRow> rows, const TensorView& logits, ModelOutput& output);
  void ConsumeRow(Sampler& sampler, const LogitsRow& row, std::span<const float> logits, ModelOutput& output) const;

  const ModelConfig& config_;
  Options options_;
  TensorParallel tp_;
  Stream& stream_;
  const CausalLM& model_;
  KVCache& kv_cache_;
  DType activation_dtype_;
  const std::atomic<bool>& cancelled_;
  SequenceTable sequences_;
  std::vector<SequenceState*> states_;  // of the sequences in the step, in its order
  ForwardBatch batch_;
  std::unique_ptr<DecodeGraphs> graphs_;           // on a GPU
  std::unique_ptr<StepClock> clock_;               // on a GPU's rank 0
  std::unique_ptr<CudaEvent> end_;                 // of the last step, on a GPU's other ranks
  std::vector<Sampler> samplers_;                  // one a thread; rank 0 only
  std::unique_ptr<DeviceSampler> device_sampler_;  // on a GPU's rank 0
  std::vector<DeviceSampler::Row> sample_rows_;
  Arena arena_;
  std::deque<StepUnderWay> under_way_;  // on rank 0, oldest first
  Tensor sampled_ids_;                  // [max_num_seqs] int32, of the step before; on a GPU
  Tensor logits_;                       // [logits_rows, vocab_size] on rank 0
  std::shared_ptr<void> host_logits_;   // as much page-locked memory, once logits go to the host
};

}  // namespace heddle
