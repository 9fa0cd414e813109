#include "sampler/device_sampler.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "sampler/logits_processor.h"
#include "tensor/cuda_matrix.h"

namespace heddle {
namespace {

constexpr size_t kAlignment = 16;

size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

template <typename T>
size_t BytesOf(const std::vector<T>& values) {
  return Aligned(values.size() * sizeof(T));
}

bool Penalizes(const SamplingParams& params) {
  return params.repetition_penalty != 1 || params.frequency_penalty != 0 || params.presence_penalty != 0;
}

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

DeviceSampler::DeviceSampler(CudaStream& stream, int max_rows, int vocab_size)
    : stream_(stream), max_rows_(max_rows), vocab_size_(vocab_size) {
  const size_t bytes = static_cast<size_t>(max_rows) * sizeof(HeddleCudaSampledToken);
  device_tokens_ = stream.Allocate(bytes);
  host_tokens_ = stream.AllocatePinned(bytes);
  next_token_ids_ = stream.Allocate(static_cast<size_t>(max_rows) * sizeof(int32_t));
  Reserve(static_cast<size_t>(max_rows) * sizeof(HeddleCudaSampleRow));
}

int64_t DeviceSampler::DeviceBytes(int max_rows) {
  return int64_t{max_rows} *
         static_cast<int64_t>(sizeof(HeddleCudaSampledToken) + sizeof(int32_t) + sizeof(HeddleCudaSampleRow));
}

void DeviceSampler::Reserve(size_t bytes) {
  if (bytes <= upload_.capacity) return;
  const size_t capacity = std::max(bytes, 2 * upload_.capacity);
  upload_.host = stream_.AllocatePinned(capacity);
  upload_.device = stream_.Allocate(capacity);
  upload_.capacity = capacity;
}

void DeviceSampler::ReserveLogprobs(int max_logprobs) {
  if (max_logprobs <= logprobs_capacity_) return;
  const size_t entries = static_cast<size_t>(max_rows_) * static_cast<size_t>(max_logprobs);
  device_best_ = stream_.Allocate(entries * (sizeof(int32_t) + sizeof(float)));
  host_best_ = stream_.AllocatePinned(entries * (sizeof(int32_t) + sizeof(float)));
  logprobs_capacity_ = max_logprobs;
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

void DeviceSampler::Launch(const TensorView& logits, std::span<const Row> rows) {
  HEDDLE_CHECK(rows.size() <= static_cast<size_t>(max_rows_) && logits.dim(0) == static_cast<int64_t>(rows.size()) &&
                   logits.dim(1) == vocab_size_,
               logits.shape.ToString());
  rows_.clear();
  ids_.clear();
  history_.clear();
  bias_ids_.clear();
  biases_.clear();
  num_logprobs_.clear();
  max_logprobs_ = -1;
  bool process_logits = false;
  for (const Row& row : rows) {
    const SamplingParams& params = *row.input.params;
    HeddleCudaSampleRow& out = rows_.emplace_back();
    out = {.seed = params.seed,
           .history_begin = -1,
           .position = static_cast<int32_t>(row.input.token_ids.size()),
           .prompt_len = row.input.prompt_len,
           .sequence_index = row.input.sequence_index,
           .given_token = row.given_token,
           .num_logprobs = std::min(row.num_logprobs, vocab_size_),
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
    num_logprobs_.push_back(out.num_logprobs);
    max_logprobs_ = std::max(max_logprobs_, out.num_logprobs);
    if (row.given_token >= 0 || !LogitsProcessor::IsNeeded(row.input)) continue;
    process_logits = true;
    AddLists(row, out);
  }
  ReserveLogprobs(max_logprobs_);

  Reserve(BytesOf(rows_) + BytesOf(ids_) + BytesOf(history_) + BytesOf(bias_ids_) + BytesOf(biases_));
  size_t offset = 0;
  const auto put = [&](const auto& values) {
    char* const at = static_cast<char*>(upload_.device.get()) + offset;
    if (!values.empty()) {
      std::memcpy(static_cast<char*>(upload_.host.get()) + offset, values.data(),
                  values.size() * sizeof(values.front()));
    }
    offset += BytesOf(values);
    return static_cast<void*>(at);
  };
  const size_t entries = rows.size() * static_cast<size_t>(std::max(max_logprobs_, 0));
  auto* const best_ids = static_cast<int32_t*>(device_best_.get());
  const HeddleCudaSample op{
      .logits = CudaMatrixOf(logits),
      .rows = static_cast<const HeddleCudaSampleRow*>(put(rows_)),
      .process_logits = process_logits ? 1 : 0,
      .ids = static_cast<const int32_t*>(put(ids_)),
      .bias_ids = static_cast<const int32_t*>(put(bias_ids_)),
      .biases = static_cast<const float*>(put(biases_)),
      .history = static_cast<int32_t*>(put(history_)),
      .token_ids = static_cast<int32_t*>(next_token_ids_.get()),
      .sampled = static_cast<HeddleCudaSampledToken*>(device_tokens_.get()),
      .max_logprobs = max_logprobs_,
      .best_ids = best_ids,
      .best_logprobs = best_ids == nullptr ? nullptr : reinterpret_cast<float*>(best_ids + entries)};
  stream_.Copy(upload_.device.get(), upload_.host.get(), offset);
  CheckCuda(CudaApi().sample(stream_.get(), &op));
  stream_.Copy(host_tokens_.get(), device_tokens_.get(), rows.size() * sizeof(HeddleCudaSampledToken));
  if (entries > 0) {
    stream_.Copy(host_best_.get(), device_best_.get(), entries * (sizeof(int32_t) + sizeof(float)));
  }
}

void DeviceSampler::Take(size_t i, SequenceOutput& out) const {
  const HeddleCudaSampledToken& token = static_cast<const HeddleCudaSampledToken*>(host_tokens_.get())[i];
  out.failure = FailureOf(token.failure);
  if (out.failure != SequenceFailure::kNone) return;
  const bool given = rows_[i].given_token >= 0;
  if (!given) {
    out.sampled = true;
    out.token_id = token.token_id;
    out.logprob = token.logprob;
  }
  const int k = num_logprobs_[i];
  if (k < 0) return;
  const size_t entries = rows_.size() * static_cast<size_t>(max_logprobs_);
  const auto* const ids = static_cast<const int32_t*>(host_best_.get());
  const auto* const logprobs = reinterpret_cast<const float*>(ids + entries);
  const size_t first = i * static_cast<size_t>(max_logprobs_);
  LogprobsData row{.k = k, .token_ids = {token.token_id}, .logprobs = {token.logprob}, .ranks = {token.rank}};
  row.token_ids.insert(row.token_ids.end(), ids + first, ids + first + k);
  row.logprobs.insert(row.logprobs.end(), logprobs + first, logprobs + first + k);
  (given ? out.prompt_logprobs : out.logprobs).Append(std::move(row));
}

}  // namespace heddle
