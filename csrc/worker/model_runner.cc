#include "worker/model_runner.h"

#include <algorithm>

#include "base/rounding.h"

namespace heddle {
namespace {

// Rows of logits computed at once. A step with more wanted rows (prompt log-probabilities) takes several rounds, so
// that memory does not grow with prompt times vocabulary. On a GPU decoding takes one round in any case.
constexpr int64_t kMaxLogitsBytes = int64_t{64} << 20;

int64_t LogitsRows(const ModelConfig& config, const ModelRunner::Options& options) {
  if (options.device == DeviceType::kCuda) return options.max_num_seqs;
  const int64_t fitting = kMaxLogitsBytes / (int64_t{config.vocab_size} * static_cast<int64_t>(sizeof(float)));
  return std::clamp<int64_t>(fitting, 1, options.max_num_seqs);
}

int64_t ArenaBytes(const ModelConfig& config, const ModelRunner::Options& options, const TensorParallel& tp,
                   DType activation_dtype, int64_t activation_bytes_per_token) {
  const int64_t rows = LogitsRows(config, options);
  const int64_t hidden_bytes = int64_t{config.hidden_size} * (options.max_num_batched_tokens + rows) *
                               static_cast<int64_t>(DTypeSize(activation_dtype));
  const int64_t logits = tp.size > 1 ? rows * tp.Shard(config.vocab_size, kPanelWidth).size() : 0;
  constexpr int64_t kAlignment = 64 * 16;  // each allocation rounds up
  return activation_bytes_per_token * options.max_num_batched_tokens + hidden_bytes +
         logits * static_cast<int64_t>(sizeof(float)) + kAlignment;
}

ForwardBatch::Limits BatchLimits(const ModelRunner::Options& options) {
  return {options.max_num_batched_tokens, options.max_num_seqs,
          static_cast<int>(CeilDiv(options.max_model_len, options.block_size)), options.block_size};
}

DeviceSampler::Limits SamplerLimits(const ModelConfig& config, const ModelRunner::Options& options) {
  return {options.max_num_seqs, options.max_model_len, config.vocab_size};
}

Arena CreateArena(const Stream& stream, int64_t bytes) {
  return stream.cuda() == nullptr ? Arena(static_cast<size_t>(bytes))
                                  : Arena(static_cast<size_t>(bytes), *stream.cuda());
}

}  // namespace

int64_t ModelRunner::ActivationBytes(const ModelConfig& config, const Options& options, const TensorParallel& tp,
                                     DType activation_dtype, int64_t activation_bytes_per_token) {
  const int64_t logits = tp.rank == 0 ? LogitsRows(config, options) * config.vocab_size : 0;
  const int64_t batch = options.device == DeviceType::kCuda
                            ? ForwardBatch::DeviceBytes(BatchLimits(options)) +
                                  options.max_num_seqs * static_cast<int64_t>(sizeof(int32_t)) +
                                  DecodeGraphs::DeviceBytes(config.num_layers) +
                                  (tp.rank == 0 ? DeviceSampler::DeviceBytes(SamplerLimits(config, options)) : 0)
                            : 0;
  return ArenaBytes(config, options, tp, activation_dtype, activation_bytes_per_token) + batch +
         logits * static_cast<int64_t>(sizeof(float));
}

ModelRunner::ModelRunner(const ModelConfig& config, const Options& options, const TensorParallel& tp, Stream& stream,
                         const CausalLM& model, KVCache& kv_cache, DType activation_dtype,
                         int64_t activation_bytes_per_token, const std::atomic<bool>& cancelled)
    : config_(config),
      options_(options),
      tp_(tp),
      stream_(stream),
      model_(model),
      kv_cache_(kv_cache),
      activation_dtype_(activation_dtype),
      cancelled_(cancelled),
      batch_(stream, BatchLimits(options)),
      arena_(CreateArena(stream, ArenaBytes(config, options, tp, activation_dtype, activation_bytes_per_token))) {
  CudaStream* const cuda = stream.cuda();
  if (cuda != nullptr) {
    graphs_ = std::make_unique<DecodeGraphs>(*cuda, *tp.communicator);
    sampled_ids_ = Tensor(DType::kInt32, {options.max_num_seqs}, *cuda);
  }
  if (tp.rank != 0) {
    if (cuda != nullptr) end_ = std::make_unique<CudaEvent>(cuda->CreateEvent());
    return;
  }
  const Shape logits{LogitsRows(config, options), config.vocab_size};
  logits_ = cuda == nullptr ? Tensor(DType::kFloat32, logits) : Tensor(DType::kFloat32, logits, *cuda);
  if (cuda != nullptr) {
    clock_ = std::make_unique<StepClock>(*cuda);
    device_sampler_ = std::make_unique<DeviceSampler>(*cuda, SamplerLimits(config, options), SampledIds());
  }
  for (int thread = 0; thread < stream.threads().num_threads(); ++thread) {
    samplers_.emplace_back(config.vocab_size, stream.isa());
  }
}

ModelRunner::~ModelRunner() {
  if (stream_.cuda() != nullptr) stream_.cuda()->Drain();
}

void ModelRunner::Submit(const SchedulerOutput& step) {
  sequences_.Apply(step, states_);
  batch_.Build(step, states_);
  HEDDLE_CHECK(batch_.token_ids().size() <= static_cast<size_t>(options_.max_num_batched_tokens), "step too large");
  // Tables of angles end there, and a graph that is replayed asks no more.
  HEDDLE_CHECK(batch_.num_positions() <= options_.max_model_len, std::to_string(batch_.num_positions()));
  if (clock_ != nullptr) clock_->Begin();
  if (tp_.rank == 0) {
    ModelOutput& output = under_way_.emplace_back().output;
    output.sequences.resize(step.scheduled.size());
    for (size_t i = 0; i < step.scheduled.size(); ++i) output.sequences[i].id = step.scheduled[i].id;
  }
  const std::vector<LogitsRow> rows = SelectRows(step);
  const bool decodes = batch_.max_query_len() == 1 && rows.size() == step.scheduled.size();
  if (graphs_ != nullptr && decodes) {
    Decode(rows);
  } else {
    Compute(rows);
  }
  if (graphs_ != nullptr && !rows.empty()) KeepSampled(rows);
  if (clock_ != nullptr) clock_->End();
  if (end_ != nullptr) end_->Record();
}

ModelOutput ModelRunner::Wait(const std::function<void()>& check) {
  HEDDLE_CHECK(!under_way_.empty(), "no step was submitted");
  if (clock_ != nullptr) {
    clock_->Wait(check);
    tp_.communicator->CheckHealth();
    Collect(under_way_.front());
  }
  ModelOutput output = std::move(under_way_.front().output);
  under_way_.pop_front();
  return output;
}

void ModelRunner::CheckDevice() const {
  if (end_ != nullptr) end_->CheckDevice();
}

ForwardContext ModelRunner::Context() {
  return {.stream = stream_,
          .arena = arena_,
          .kv_cache = kv_cache_,
          .activation_dtype = activation_dtype_,
          .num_positions = batch_.num_positions(),
          .token_ids = batch_.token_ids(),
          .positions = batch_.positions(),
          .slot_mapping = batch_.slot_mapping(),
          .attention = batch_.attention(),
          .cancelled = cancelled_};
}

void ModelRunner::Decode(std::span<const LogitsRow> rows) {
  const int num_seqs = DecodeGraphs::PaddedNumSeqs(batch_.num_seqs(), options_.max_num_seqs);
  const TensorView logits = tp_.rank == 0 ? logits_.view().Rows(0, num_seqs) : TensorView();
  batch_.Upload(static_cast<size_t>(num_seqs));
  // The same on all ranks, whose graphs are captured together.
  const std::span<const DeviceSampler::Row> sample_rows = SampleRowsOf(rows);
  const bool samples = std::all_of(sample_rows.begin(), sample_rows.end(), DeviceSampler::IsPlain);
  if (samples && tp_.rank == 0) {
    const OpTimer timer(stream_);
    device_sampler_->Upload(sample_rows, static_cast<size_t>(num_seqs));
  }
  ForwardContext context = Context();
  graphs_->Run({num_seqs, context.attention.max_blocks_per_seq, samples}, [&] {
    const Arena::Scope scope(arena_);
    batch_.FillPending(SampledIds());
    // A graph serves contexts of any length that the block table has room for.
    context.attention.max_seq_len = context.attention.max_blocks_per_seq * options_.block_size;
    const TensorView hidden = arena_.Allocate(activation_dtype_, {num_seqs, config_.hidden_size});
    model_.Forward(context, hidden);
    model_.ComputeLogits(context, hidden, logits);
    if (samples && tp_.rank == 0) device_sampler_->SamplePlain(logits);
  });
  if (tp_.rank != 0) return;
  if (!samples) return Sample(rows);
  const OpTimer timer(stream_);
  AwaitSampled(rows, device_sampler_->Fetch());
}

void ModelRunner::Compute(std::span<const LogitsRow> rows) {
  std::vector<int32_t> logits_rows;
  for (const LogitsRow& row : rows) logits_rows.push_back(row.row);
  batch_.SetLogitsRows(std::move(logits_rows));
  batch_.Upload();
  if (batch_.has_pending_tokens()) batch_.FillPending(SampledIds());

  const Arena::Scope scope(arena_);
  ForwardContext context = Context();
  const TensorView hidden = arena_.Allocate(activation_dtype_, {context.num_tokens(), config_.hidden_size});
  model_.Forward(context, hidden);
  const auto rows_a_round = static_cast<size_t>(LogitsRows(config_, options_));
  for (size_t begin = 0; begin < rows.size(); begin += rows_a_round) {
    const size_t end = std::min(begin + rows_a_round, rows.size());
    ComputeLogits(context, hidden, rows, begin, end);
    if (tp_.rank != 0) continue;
    Sample(rows.subspan(begin, end - begin));
    // The sampler's memory of launches is short.
    if (clock_ != nullptr && end < rows.size()) WaitForDevice();
  }
}

void ModelRunner::Sample(std::span<const LogitsRow> rows) {
  if (device_sampler_ != nullptr && DeviceLists(rows)) return LaunchSampling(rows);
  Consume(rows, HostLogits(static_cast<int64_t>(rows.size())), under_way_.back().output);
}

bool ModelRunner::DeviceLists(std::span<const LogitsRow> rows) {
  return std::all_of(rows.begin(), rows.end(),
                     [](const LogitsRow& row) { return DeviceSampler::Lists(row.num_logprobs); });
}

void ModelRunner::LaunchSampling(std::span<const LogitsRow> rows) {
  const OpTimer timer(stream_);
  const TensorView logits = logits_.view().Rows(0, std::ssize(rows));
  AwaitSampled(rows, device_sampler_->Launch(logits, SampleRowsOf(rows)));
}

std::span<const DeviceSampler::Row> ModelRunner::SampleRowsOf(std::span<const LogitsRow> rows) {
  sample_rows_.clear();
  for (const LogitsRow& row : rows) {
    sample_rows_.push_back({InputOf(*states_[row.output]), row.prompt_token, row.num_logprobs});
  }
  return sample_rows_;
}

void ModelRunner::AwaitSampled(std::span<const LogitsRow> rows, size_t launch) {
  StepUnderWay& step = under_way_.back();
  step.launch = launch;
  step.rows.assign(rows.begin(), rows.end());
}

void ModelRunner::Collect(StepUnderWay& step) {
  const OpTimer timer(stream_);
  for (size_t i = 0; i < step.rows.size(); ++i) {
    SequenceOutput& sequence = step.output.sequences[step.rows[i].output];
    if (sequence.failure == SequenceFailure::kNone) device_sampler_->Take(step.launch, i, sequence);
  }
  step.rows.clear();
}

void ModelRunner::WaitForDevice() {
  stream_.cuda()->Synchronize();
  tp_.communicator->CheckHealth();
  for (StepUnderWay& step : under_way_) Collect(step);
}

// Where the device has sampled them in one go they lie there, by row. Else the host knows them already.
void ModelRunner::KeepSampled(std::span<const LogitsRow> rows) {
  const bool on_device = rows.size() <= static_cast<size_t>(options_.max_num_seqs) && DeviceLists(rows);
  if (!on_device && tp_.rank == 0) WaitForDevice();
  std::vector<int32_t> token_ids;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].prompt_token >= 0) continue;
    states_[rows[i].output]->pending_row = static_cast<int>(on_device ? i : token_ids.size());
    token_ids.push_back(tp_.rank == 0 ? under_way_.back().output.sequences[rows[i].output].token_id : 0);
  }
  if (!on_device && tp_.rank == 0) {
    stream_.cuda()->Copy(sampled_ids_.view().data, token_ids.data(), token_ids.size() * sizeof(int32_t));
  }
  if (tp_.size > 1) tp_.communicator->Broadcast(sampled_ids_, 0);
}

SamplingInput ModelRunner::InputOf(const SequenceState& state) const {
  return {.params = &state.sampling_params,
          .token_ids = state.token_ids,
          .prompt_len = state.prompt_len,
          .sequence_index = state.sequence_index,
          .eos_token_ids = config_.eos_token_ids,
          .num_pending_tokens = state.num_pending_tokens};
}

std::vector<ModelRunner::LogitsRow> ModelRunner::SelectRows(const SchedulerOutput& step) const {
  std::vector<LogitsRow> rows;
  rows.reserve(step.scheduled.size());
  for (size_t s = 0; s < step.scheduled.size(); ++s) {
    const ScheduledSequence& scheduled = step.scheduled[s];
    const SequenceState& state = *states_[s];
    const SamplingParams& params = state.sampling_params;
    const int begin = state.num_computed_tokens;
    const int end = begin + scheduled.num_scheduled_tokens;
    const int first_row = batch_.first_row(s);
    if (params.prompt_logprobs >= 0 && state.sequence_index == 0) {
      // Position p predicts token p + 1; a resumed sequence has delivered its prompt's already or repeats none.
      for (int position = begin; position < std::min(end, state.prompt_len - 1); ++position) {
        rows.push_back({first_row + position - begin, s, params.prompt_logprobs,
                        state.token_ids[static_cast<size_t>(position) + 1]});
      }
    }
    if (scheduled.samples) rows.push_back({first_row + scheduled.num_scheduled_tokens - 1, s, params.logprobs});
  }
  return rows;
}

void ModelRunner::ComputeLogits(ForwardContext& context, const TensorView& hidden, std::span<const LogitsRow> rows,
                                size_t begin, size_t end) {
  const Arena::Scope scope(arena_);
  const auto count = static_cast<int64_t>(end - begin);
  const TensorView logits = tp_.rank == 0 ? logits_.view().Rows(0, count) : TensorView();
  const int first = rows[begin].row;
  if (rows[end - 1].row - first + 1 == count) {  // neighbours, as when all sequences decode
    return model_.ComputeLogits(context, hidden.Rows(first, first + count), logits);
  }
  const TensorView selected = arena_.Allocate(activation_dtype_, {count, config_.hidden_size});
  ops::GatherRows(stream_, hidden, batch_.logits_rows().subspan(begin, end - begin), selected);
  model_.ComputeLogits(context, selected, logits);
}

TensorView ModelRunner::HostLogits(int64_t num_rows) {
  const TensorView logits = logits_.view().Rows(0, num_rows);
  CudaStream* const cuda = stream_.cuda();
  if (cuda == nullptr) return logits;
  if (host_logits_ == nullptr) {
    WaitForDevice();  // as page-locking may, and so for ranks that wait for this one
    host_logits_ = cuda->AllocatePinned(static_cast<size_t>(logits_.view().shape.NumElements()) * sizeof(float));
  }
  cuda->Copy(host_logits_.get(), logits.data, static_cast<size_t>(logits.shape.NumElements()) * sizeof(float));
  WaitForDevice();
  return {host_logits_.get(), DType::kFloat32, logits.shape};
}

// Sequences are independent, so threads share them out; rows of one sequence are taken in order, by one thread.
void ModelRunner::Consume(std::span<const LogitsRow> rows, const TensorView& logits, ModelOutput& output) {
  const OpTimer timer(stream_);
  const auto begins_sequence = [&](size_t i) { return i == 0 || rows[i].output != rows[i - 1].output; };
  const auto consume = [&](int thread, int64_t begin, int64_t end) {
    auto i = static_cast<size_t>(begin);
    while (i < rows.size() && !begins_sequence(i)) ++i;
    for (; i < rows.size() && (static_cast<int64_t>(i) < end || !begins_sequence(i)); ++i) {
      const std::span<const float> row(logits.Row<float>(static_cast<int64_t>(i)),
                                       static_cast<size_t>(config_.vocab_size));
      ConsumeRow(samplers_[static_cast<size_t>(thread)], rows[i], row, output);
    }
  };
  const auto num_rows = static_cast<int64_t>(rows.size());
  // A row of a small vocabulary is sampled sooner than another thread wakes up.
  constexpr int64_t kMinParallelLogits = 65536;
  if (num_rows == 1 || num_rows * config_.vocab_size < kMinParallelLogits) return consume(0, 0, num_rows);
  stream_.threads().RunPieces(num_rows, 1, consume);
}

void ModelRunner::ConsumeRow(Sampler& sampler, const LogitsRow& row, std::span<const float> logits,
                             ModelOutput& output) const {
  SequenceOutput& sequence = output.sequences[row.output];
  if (sequence.failure != SequenceFailure::kNone) return;
  if (row.prompt_token < 0) return sampler.Sample(logits, InputOf(*states_[row.output]), sequence);
  if (sequence.prompt_logprobs == nullptr) sequence.prompt_logprobs = std::make_unique<LogprobsData>();
  if (!sampler.AppendLogprobs(logits, row.prompt_token, row.num_logprobs, *sequence.prompt_logprobs)) {
    sequence.failure = SequenceFailure::kInvalidLogits;
  }
}

}  // namespace heddle
