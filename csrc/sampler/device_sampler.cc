#include "sampler/device_sampler.h"

#include <algorithm>

#include "base/error.h"
#include "device/staged_arrays.h"
#include "sampler/logits_processor.h"
#include "tensor/cuda_matrix.h"

namespace heddle {
namespace {

constexpr size_t kBestEntryBytes = sizeof(int32_t) + sizeof(float);

bool Penalizes(const SamplingParams& params) {
  return params.repetition_penalty != 1 || params.frequency_penalty != 0 || params.presence_penalty != 0;
}

// Of the best tokens of every row.
size_t BestBytes(const DeviceSampler::Limits& limits) {
  return static_cast<size_t>(limits.max_rows) *
         static_cast<size_t>(std::min(limits.vocab_size, HEDDLE_CUDA_MAX_LOGPROBS)) * kBestEntryBytes;
}

// Of a history for every row, as long as a sequence gets.
size_t HistoryBytes(const DeviceSampler::Limits& limits) {
  return StagedArrays::BytesOf(static_cast<size_t>(limits.max_rows) * static_cast<size_t>(limits.max_model_len),
                               sizeof(int32_t));
}

// Greedy, and nothing else.
constexpr HeddleCudaSampleRow kUntakenRow{.seed = 0,
                                          .history_begin = -1,
                                          .position = 0,
                                          .prompt_len = 0,
                                          .sequence_index = 0,
                                          .given_token = -1,
                                          .num_logprobs = -1,
                                          .temperature = 0,
                                          .top_k = 0,
                                          .top_p = 1,
                                          .min_p = 0,
                                          .repetition_penalty = 1,
                                          .frequency_penalty = 0,
                                          .presence_penalty = 0,
                                          .allowed_ids = {},
                                          .banned_ids = {},
                                          .logit_bias = {}};

SequenceFailure FailureOf(int32_t failure) {
  switch (failure) {
    case kHeddleCudaSampled:
      return SequenceFailure::kNone;
    case kHeddleCudaNoTokenAllowed:
      return SequenceFailure::kNoTokenAllowed;
    default:
      return SequenceFailure::kInvalidLogits;
  }
}

}  // namespace

DeviceSampler::DeviceSampler(CudaStream& stream, const Limits& limits, int32_t* token_ids)
    : stream_(stream), limits_(limits), token_ids_(token_ids) {
  const auto rows = static_cast<size_t>(limits.max_rows);
  device_rows_ = stream.Allocate(rows * sizeof(HeddleCudaSampleRow));
  device_tokens_ = stream.Allocate(rows * sizeof(HeddleCudaSampledToken));
  for (Exchange& exchange : exchanges_) {
    Reserve(exchange.rows, rows * sizeof(HeddleCudaSampleRow));
    Reserve(exchange.tokens, rows * sizeof(HeddleCudaSampledToken));
  }
}

int64_t DeviceSampler::DeviceBytes(const Limits& limits) {
  return static_cast<int64_t>(static_cast<size_t>(limits.max_rows) *
                                  (sizeof(HeddleCudaSampleRow) + sizeof(HeddleCudaSampledToken)) +
                              HistoryBytes(limits) + BestBytes(limits));
}

bool DeviceSampler::IsPlain(const Row& row) {
  return row.given_token < 0 && row.num_logprobs < 0 && !LogitsProcessor::IsNeeded(row.input);
}

void DeviceSampler::Reserve(Pinned& pinned, size_t bytes) {
  if (bytes <= pinned.bytes) return;
  // Page-locking may wait for the device, whose other ranks may wait for this rank's next launch.
  stream_.Synchronize();
  pinned.bytes = std::max(bytes, 2 * pinned.bytes);
  pinned.data = stream_.AllocatePinned(pinned.bytes);
}

// What the request's own rules need, as LogitsProcessor applies them.
void DeviceSampler::AddLists(const Row& row, HeddleCudaSampleRow& out) {
  const SamplingParams& params = *row.input.params;
  const auto add = [](auto& to, const auto& values) {
    const auto begin = static_cast<int32_t>(to.size());
    to.insert(to.end(), values.begin(), values.end());
    return HeddleCudaRange{begin, static_cast<int32_t>(values.size())};
  };
  out.allowed_ids = add(ids_, params.allowed_token_ids);
  out.banned_ids = add(ids_, LogitsProcessor::BannedIds(row.input));
  out.logit_bias = {static_cast<int32_t>(bias_ids_.size()), static_cast<int32_t>(params.logit_bias.size())};
  for (const auto& [id, bias] : params.logit_bias) {
    bias_ids_.push_back(id);
    biases_.push_back(bias);
  }
  if (!Penalizes(params)) return;
  out.history_begin = static_cast<int64_t>(history_.size());
  history_.insert(history_.end(), row.input.token_ids.begin(), row.input.token_ids.end());
  history_.push_back(0);
}

void DeviceSampler::Describe(std::span<const Row> rows, Exchange& exchange) {
  HEDDLE_CHECK(rows.size() <= static_cast<size_t>(limits_.max_rows), std::to_string(rows.size()));
  ids_.clear();
  history_.clear();
  bias_ids_.clear();
  biases_.clear();
  exchange.num_logprobs.clear();
  exchange.is_given.clear();
  exchange.max_logprobs = -1;
  exchange.has_rules = false;
  auto* out = static_cast<HeddleCudaSampleRow*>(exchange.rows.data.get());
  for (const Row& row : rows) {
    const SamplingParams& params = *row.input.params;
    *out = {.seed = params.seed,
            .history_begin = -1,
            .position = row.input.num_tokens(),
            .prompt_len = row.input.prompt_len,
            .sequence_index = row.input.sequence_index,
            .given_token = row.given_token,
            .num_logprobs = std::min(row.num_logprobs, limits_.vocab_size),
            .temperature = params.temperature,
            .top_k = params.top_k,
            .top_p = params.top_p,
            .min_p = params.min_p,
            .repetition_penalty = params.repetition_penalty,
            .frequency_penalty = params.frequency_penalty,
            .presence_penalty = params.presence_penalty,
            .allowed_ids = {},
            .banned_ids = {},
            .logit_bias = {}};
    const bool is_given = row.given_token >= 0;
    exchange.is_given.push_back(is_given);
    exchange.num_logprobs.push_back(out->num_logprobs);
    exchange.max_logprobs = std::max(exchange.max_logprobs, out->num_logprobs);
    if (!is_given && LogitsProcessor::IsNeeded(row.input)) {
      exchange.has_rules = true;
      AddLists(row, *out);
    }
    ++out;
  }
}

HeddleCudaSample DeviceSampler::OpOn(const TensorView& logits) const {
  return {.logits = CudaMatrixOf(logits),
          .rows = static_cast<const HeddleCudaSampleRow*>(device_rows_.get()),
          .process_logits = 0,
          .ids = nullptr,
          .bias_ids = nullptr,
          .biases = nullptr,
          .history = nullptr,
          .token_ids = token_ids_,
          .sampled = static_cast<HeddleCudaSampledToken*>(device_tokens_.get()),
          .max_logprobs = -1,
          .best_ids = nullptr,
          .best_logprobs = nullptr};
}

void DeviceSampler::UploadLists(Exchange& exchange, HeddleCudaSample& op) {
  const size_t bytes = StagedArrays::BytesOf(ids_) + StagedArrays::BytesOf(history_) +
                       StagedArrays::BytesOf(bias_ids_) + StagedArrays::BytesOf(biases_);
  Reserve(exchange.lists, bytes);
  if (bytes > device_lists_bytes_) {
    // At once as much as was planned for; only lists of ids take more, and then not a little more each time.
    const size_t planned = HistoryBytes(limits_);
    device_lists_bytes_ = bytes <= planned ? planned : exchange.lists.bytes;
    device_lists_ = stream_.Allocate(device_lists_bytes_);
  }
  StagedArrays staged(exchange.lists.data.get(), device_lists_.get());
  op.process_logits = 1;
  op.ids = staged.Put(ids_);
  op.bias_ids = staged.Put(bias_ids_);
  op.biases = staged.Put(biases_);
  op.history = staged.Put(history_);
  if (staged.bytes() > 0) staged.Copy(stream_);
}

size_t DeviceSampler::Launch(const TensorView& logits, std::span<const Row> rows) {
  HEDDLE_CHECK(logits.dim(0) == static_cast<int64_t>(rows.size()) && logits.dim(1) == limits_.vocab_size,
               logits.shape.ToString());
  Exchange& exchange = NextExchange();
  Describe(rows, exchange);
  HeddleCudaSample op = OpOn(logits);
  if (exchange.has_rules) UploadLists(exchange, op);
  const auto max_logprobs = static_cast<size_t>(std::max(exchange.max_logprobs, 0));
  const size_t entries = rows.size() * max_logprobs;
  Reserve(exchange.best, entries * kBestEntryBytes);
  if (entries > 0 && device_best_ == nullptr) device_best_ = stream_.Allocate(BestBytes(limits_));
  op.max_logprobs = exchange.max_logprobs;
  op.best_ids = static_cast<int32_t*>(device_best_.get());
  if (entries > 0) op.best_logprobs = reinterpret_cast<float*>(op.best_ids + entries);
  stream_.Copy(device_rows_.get(), exchange.rows.data.get(), rows.size() * sizeof(HeddleCudaSampleRow));
  CheckCuda(CudaApi().sample(stream_.get(), &op));
  if (entries > 0) stream_.Copy(exchange.best.data.get(), device_best_.get(), entries * kBestEntryBytes);
  return Fetch();
}

void DeviceSampler::Upload(std::span<const Row> rows, size_t num_rows) {
  Exchange& exchange = NextExchange();
  Describe(rows, exchange);
  HEDDLE_CHECK(!exchange.has_rules && exchange.max_logprobs < 0, "a row is not plain");
  HEDDLE_CHECK(rows.size() <= num_rows && num_rows <= static_cast<size_t>(limits_.max_rows), std::to_string(num_rows));
  auto* const described = static_cast<HeddleCudaSampleRow*>(exchange.rows.data.get());
  std::fill(described + rows.size(), described + num_rows, kUntakenRow);
  stream_.Copy(device_rows_.get(), described, num_rows * sizeof(HeddleCudaSampleRow));
}

void DeviceSampler::SamplePlain(const TensorView& logits) const {
  HEDDLE_CHECK(logits.dim(0) <= limits_.max_rows && logits.dim(1) == limits_.vocab_size, logits.shape.ToString());
  const HeddleCudaSample op = OpOn(logits);
  CheckCuda(CudaApi().sample(stream_.get(), &op));
}

size_t DeviceSampler::Fetch() {
  const Exchange& exchange = NextExchange();
  stream_.Copy(exchange.tokens.data.get(), device_tokens_.get(),
               exchange.is_given.size() * sizeof(HeddleCudaSampledToken));
  return num_launched_++;
}

void DeviceSampler::Take(size_t launch, size_t i, SequenceOutput& out) const {
  HEDDLE_CHECK(launch < num_launched_ && num_launched_ - launch <= exchanges_.size(), "what a launch gave is lost");
  const Exchange& exchange = exchanges_[launch % exchanges_.size()];
  const auto& token = static_cast<const HeddleCudaSampledToken*>(exchange.tokens.data.get())[i];
  out.failure = FailureOf(token.failure);
  if (out.failure != SequenceFailure::kNone) return;
  if (!exchange.is_given[i]) {
    out.sampled = true;
    out.token_id = token.token_id;
    out.logprob = token.logprob;
  }
  const int k = exchange.num_logprobs[i];
  if (k < 0) return;
  const auto max_logprobs = static_cast<size_t>(exchange.max_logprobs);
  const auto* const ids = static_cast<const int32_t*>(exchange.best.data.get());
  const auto* const logprobs = reinterpret_cast<const float*>(ids + exchange.is_given.size() * max_logprobs);
  const size_t first = i * max_logprobs;
  LogprobsData row{.k = k, .token_ids = {token.token_id}, .logprobs = {token.logprob}, .ranks = {token.rank}};
  row.token_ids.insert(row.token_ids.end(), ids + first, ids + first + k);
  row.logprobs.insert(row.logprobs.end(), logprobs + first, logprobs + first + k);
  AppendLogprobs(exchange.is_given[i] ? out.prompt_logprobs : out.logprobs, std::move(row));
}

}  // namespace heddle
