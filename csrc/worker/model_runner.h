// Runs the steps of one rank: batch, model, logits, sampling.
//
// Every rank computes the same batch on its shard; rank 0 gathers the logits and samples. Rank thread only.
#pragma once

#include <atomic>
#include <chrono>
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

namespace heddle {

class ModelRunner {
 public:
  struct Options {
    int max_num_seqs = 0;
    int max_num_batched_tokens = 0;
    int block_size = 0;
    int max_model_len = 0;
    DeviceType device = DeviceType::kCpu;
    std::chrono::milliseconds timeout{0};  // of a GPU's step; 0: none
  };

  // Everything given outlives this. Reserves the activations of the largest step.
  ModelRunner(const ModelConfig& config, const Options& options, const TensorParallel& tp, Stream& stream,
              const CausalLM& model, KVCache& kv_cache, DType activation_dtype, int64_t activation_bytes_per_token,
              const std::atomic<bool>& cancelled);

  // On rank 0 one output a scheduled sequence; elsewhere empty. Fails with kCancelled, and as the communicator does.
  ModelOutput Execute(const SchedulerOutput& step);

  // Bytes that the constructor reserves on the device.
  static int64_t ActivationBytes(const ModelConfig& config, const Options& options, const TensorParallel& tp,
                                 DType activation_dtype, int64_t activation_bytes_per_token);

 private:
  // A row of the final hidden states whose logits are wanted, and for what.
  struct LogitsRow {
    int row = 0;
    size_t output = 0;          // index into ModelOutput::sequences
    int32_t prompt_token = -1;  // the prompt token it predicts, or -1: sample
  };

  std::vector<LogitsRow> SelectRows(const SchedulerOutput& step) const;
  ForwardContext Context();
  // A step in which every sequence has one token and samples: hidden states and logits in one graph.
  void Decode(std::span<const LogitsRow> rows, const SchedulerOutput& step, ModelOutput& output);
  // Any step.
  void Compute(std::span<const LogitsRow> rows, const SchedulerOutput& step, ModelOutput& output);
  // Rows [begin, end) of `rows`.
  void ComputeLogits(ForwardContext& context, const TensorView& hidden, std::span<const LogitsRow> rows, size_t begin,
                     size_t end);
  // The first `num_rows` rows of logits in host memory, computed.
  TensorView HostLogits(int64_t num_rows);
  // Until the step's launches are done.
  void WaitForDevice();
  // Turns the logits of `rows` into outputs, on the device if it can.
  void Sample(std::span<const LogitsRow> rows, const SchedulerOutput& step, ModelOutput& output);
  void SampleOnDevice(std::span<const LogitsRow> rows, const SchedulerOutput& step, ModelOutput& output);
  SamplingInput InputOf(const SequenceState& state) const;
  void Consume(std::span<const LogitsRow> rows, const TensorView& logits, const SchedulerOutput& step,
               ModelOutput& output);
  void ConsumeRow(Sampler& sampler, const LogitsRow& row, std::span<const float> logits, const SchedulerOutput& step,
                  ModelOutput& output) const;

  const ModelConfig& config_;
  Options options_;
  TensorParallel tp_;
  Stream& stream_;
  const CausalLM& model_;
  KVCache& kv_cache_;
  DType activation_dtype_;
  const std::atomic<bool>& cancelled_;
  SequenceTable sequences_;
  ForwardBatch batch_;
  std::unique_ptr<DecodeGraphs> graphs_;           // on a GPU
  std::vector<Sampler> samplers_;                  // one a thread; rank 0 only
  std::unique_ptr<DeviceSampler> device_sampler_;  // on a GPU's rank 0
  Arena arena_;
  Tensor logits_;                      // [logits_rows, vocab_size] on rank 0
  std::shared_ptr<void> host_logits_;  // as much page-locked memory, on a GPU's rank 0
};

}  // namespace heddle
