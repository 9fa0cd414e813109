#include "worker/model_runner.h"

#include <algorithm>
#include <cstring>

namespace heddle {
namespace {

// Rows of logits computed at once. A step with more wanted rows (prompt log-probabilities) takes several rounds, so
// that memory does not grow with prompt times vocabulary.
constexpr int64_t kMaxLogitsBytes = int64_t{64} << 20;

int64_t LogitsRows(const ModelConfig& config, const ModelRunner::Options& options) {
  const int64_t fitting = kMaxLogitsBytes / (int64_t{config.vocab_size} * static_cast<int64_t>(sizeof(float)));
  return std::clamp<int64_t>(fitting, 1, options.max_num_seqs);
}

int64_t ArenaBytes(const ModelConfig& config, const ModelRunner::Options& options, const TensorParallel& tp,
                   int64_t activation_bytes_per_token) {
  const int64_t rows = LogitsRows(config, options);
  const int64_t floats = int64_t{config.hidden_size} * (options.max_num_batched_tokens + rows) +
                         (tp.size > 1 ? rows * tp.Shard(config.vocab_size, kPanelWidth).size() : 0);
  constexpr int64_t kAlignment = 64 * 16;  // each allocation rounds up
  return activation_bytes_per_token * options.max_num_batched_tokens + floats * static_cast<int64_t>(sizeof(float)) +
         kAlignment;
}

}  // namespace

int64_t ModelRunner::ActivationBytes(const ModelConfig& config, const Options& options, const TensorParallel& tp,
                                     int64_t activation_bytes_per_token) {
  const int64_t logits = tp.rank == 0 ? LogitsRows(config, options) * config.vocab_size : 0;
  return ArenaBytes(config, options, tp, activation_bytes_per_token) + logits * static_cast<int64_t>(sizeof(float));
}

ModelRunner::ModelRunner(const ModelConfig& config, const Options& options, const TensorParallel& tp, Stream& stream,
                         const CausalLM& model, KVCache& kv_cache, int64_t activation_bytes_per_token,
                         const std::atomic<bool>& cancelled)
    : config_(config),
      options_(options),
      tp_(tp),
      stream_(stream),
      model_(model),
      kv_cache_(kv_cache),
      cancelled_(cancelled),
      arena_(static_cast<size_t>(ArenaBytes(config, options, tp, activation_bytes_per_token))) {
  if (tp.rank != 0) return;
  logits_ = Tensor(DType::kFloat32, {LogitsRows(config, options), config.vocab_size});
  for (int thread = 0; thread < stream.threads().num_threads(); ++thread) {
    samplers_.emplace_back(config.vocab_size, stream.isa());
  }
}

ModelOutput ModelRunner::Execute(const SchedulerOutput& step) {
  sequences_.Apply(step);
  batch_.Build(step, sequences_, options_.block_size);
  HEDDLE_CHECK(batch_.token_ids().size() <= static_cast<size_t>(options_.max_num_batched_tokens), "step too large");

  const Arena::Scope scope(arena_);
  ForwardContext context{
      stream_,   arena_, kv_cache_, batch_.token_ids(), batch_.positions(), batch_.slot_mapping(), batch_.attention(),
      cancelled_};
  const TensorView hidden = arena_.Allocate(DType::kFloat32, {context.num_tokens(), config_.hidden_size});
  model_.Forward(context, hidden);

  ModelOutput output;
  if (tp_.rank == 0) {
    output.sequences.resize(step.scheduled.size());
    for (size_t i = 0; i < step.scheduled.size(); ++i) output.sequences[i].id = step.scheduled[i].id;
  }
  const std::vector<LogitsRow> rows = SelectRows(step);
  const size_t rows_a_round = static_cast<size_t>(LogitsRows(config_, options_));
  for (size_t begin = 0; begin < rows.size(); begin += rows_a_round) {
    const std::span<const LogitsRow> round(rows.data() + begin, std::min(rows_a_round, rows.size() - begin));
    ComputeLogits(context, hidden, round);
    if (tp_.rank == 0) Consume(round, step, output);
  }
  return output;
}

std::vector<ModelRunner::LogitsRow> ModelRunner::SelectRows(const SchedulerOutput& step) const {
  std::vector<LogitsRow> rows;
  rows.reserve(step.scheduled.size());
  for (size_t s = 0; s < step.scheduled.size(); ++s) {
    const ScheduledSequence& scheduled = step.scheduled[s];
    const SequenceState& state = sequences_.at(scheduled.id);
    const int begin = state.num_computed_tokens;
    const int end = begin + scheduled.num_scheduled_tokens;
    const int first_row = batch_.first_row(s);
    if (state.sampling_params.prompt_logprobs >= 0 && state.sequence_index == 0) {
      // Position p predicts token p + 1; a resumed sequence has delivered its prompt's already or repeats none.
      for (int position = begin; position < std::min(end, state.prompt_len - 1); ++position) {
        rows.push_back({first_row + position - begin, s, state.token_ids[static_cast<size_t>(position) + 1]});
      }
    }
    if (scheduled.samples) rows.push_back({first_row + scheduled.num_scheduled_tokens - 1, s, -1});
  }
  return rows;
}

void ModelRunner::ComputeLogits(ForwardContext& context, const TensorView& hidden, std::span<const LogitsRow> rows) {
  const Arena::Scope scope(arena_);
  const int64_t count = static_cast<int64_t>(rows.size());
  const TensorView logits = tp_.rank == 0 ? logits_.view().Rows(0, count) : TensorView();
  const int first = rows.front().row;
  if (rows.back().row - first + 1 == count) {  // neighbours, as when all sequences decode
    return model_.ComputeLogits(context, hidden.Rows(first, first + count), logits);
  }
  const TensorView selected = arena_.Allocate(DType::kFloat32, {count, config_.hidden_size});
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(selected.Row<float>(i), hidden.Row<float>(rows[static_cast<size_t>(i)].row),
                static_cast<size_t>(config_.hidden_size) * sizeof(float));
  }
  model_.ComputeLogits(context, selected, logits);
}

// Sequences are independent, so threads share them out; rows of one sequence are taken in order, by one thread.
void ModelRunner::Consume(std::span<const LogitsRow> rows, const SchedulerOutput& step, ModelOutput& output) {
  const OpTimer timer(stream_);
  const auto begins_sequence = [&](size_t i) { return i == 0 || rows[i].output != rows[i - 1].output; };
  const auto consume = [&](int thread, int64_t begin, int64_t end) {
    auto i = static_cast<size_t>(begin);
    while (i < rows.size() && !begins_sequence(i)) ++i;
    for (; i < rows.size() && (static_cast<int64_t>(i) < end || !begins_sequence(i)); ++i) {
      const std::span<const float> logits(logits_.view().Row<float>(static_cast<int64_t>(i)),
                                          static_cast<size_t>(config_.vocab_size));
      ConsumeRow(samplers_[static_cast<size_t>(thread)], rows[i], logits, step, output);
    }
  };
  const auto num_rows = static_cast<int64_t>(rows.size());
  // A row of a small vocabulary is sampled sooner than another thread wakes up.
  constexpr int64_t kMinParallelLogits = 65536;
  if (num_rows == 1 || num_rows * config_.vocab_size < kMinParallelLogits) return consume(0, 0, num_rows);
  stream_.threads().RunPieces(num_rows, 1, consume);
}

void ModelRunner::ConsumeRow(Sampler& sampler, const LogitsRow& row, std::span<const float> logits,
                             const SchedulerOutput& step, ModelOutput& output) const {
  SequenceOutput& sequence = output.sequences[row.output];
  if (sequence.failure != SequenceFailure::kNone) return;
  const SequenceState& state = sequences_.at(step.scheduled[row.output].id);
  if (row.prompt_token < 0) {
    sampler.Sample(
        logits,
        {&state.sampling_params, state.token_ids, state.prompt_len, state.sequence_index, config_.eos_token_ids},
        sequence);
  } else if (!sampler.AppendLogprobs(logits, row.prompt_token, state.sampling_params.prompt_logprobs,
                                     sequence.prompt_logprobs)) {
    sequence.failure = SequenceFailure::kInvalidLogits;
  }
}

}  // namespace heddle
