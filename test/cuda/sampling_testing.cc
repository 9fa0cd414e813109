#include "sampling_testing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>

namespace heddle::test {
namespace {

constexpr int32_t kEmptyPlace = -7;

// An array is never empty, so that it has an address.
template <typename T>
std::vector<T> NotEmpty(std::vector<T> values) {
  if (values.empty()) values.push_back(T{});
  return values;
}

int64_t StrideOf(size_t vocab_size) { return static_cast<int64_t>(vocab_size + 7) / 4 * 4; }

// [num_rows, stride], NaN between rows.
std::vector<float> Padded(const std::vector<std::vector<float>>& logits, size_t num_rows) {
  const auto stride = static_cast<size_t>(StrideOf(logits[0].size()));
  std::vector<float> padded(num_rows * stride, kNaN);
  for (size_t row = 0; row < num_rows; ++row) {
    const std::vector<float>& from = logits[logits.size() == 1 ? 0 : row];
    std::copy(from.begin(), from.end(), padded.begin() + static_cast<ptrdiff_t>(row * stride));
  }
  return padded;
}

bool IsIn(int32_t id, const std::vector<float>& logits) { return id >= 0 && static_cast<size_t>(id) < logits.size(); }

float Saturate(float logit) { return std::clamp(logit, -kLargest, kLargest); }

}  // namespace

// Everything that the rows of a batch refer to, in shared arrays.
struct FlatRows {
  std::vector<HeddleCudaSampleRow> rows;
  std::vector<int32_t> ids, bias_ids, history;
  std::vector<float> biases;
  std::vector<size_t> history_ends;

  explicit FlatRows(const std::vector<SampleRow>& from) {
    for (const SampleRow& row : from) Add(row);
  }

  void Add(const SampleRow& row) {
    HeddleCudaSampleRow flat = {
        .seed = row.seed,
        .history_begin = row.has_history ? static_cast<int64_t>(history.size()) : -1,
        .position = static_cast<int32_t>(row.token_ids.size()),
        .prompt_len = row.prompt_len,
        .sequence_index = row.sequence_index,
        .given_token = row.given_token,
        .num_logprobs = row.num_logprobs,
        .temperature = row.temperature,
        .top_k = row.top_k,
        .top_p = row.top_p,
        .min_p = row.min_p,
        .repetition_penalty = row.repetition_penalty,
        .frequency_penalty = row.frequency_penalty,
        .presence_penalty = row.presence_penalty,
        .allowed_ids = AddIds(row.allowed_ids),
        .banned_ids = AddIds(row.banned_ids),
        .logit_bias = {static_cast<int32_t>(biases.size()), static_cast<int32_t>(row.logit_bias.size())}};
    rows.push_back(flat);
    for (const auto& [id, bias] : row.logit_bias) {
      bias_ids.push_back(id);
      biases.push_back(bias);
    }
    if (row.has_history) {
      history.insert(history.end(), row.token_ids.begin(), row.token_ids.end());
      history.push_back(kEmptyPlace);
    }
    history_ends.push_back(history.size());
  }

  HeddleCudaRange AddIds(const std::vector<int32_t>& more) {
    const HeddleCudaRange range = {static_cast<int32_t>(ids.size()), static_cast<int32_t>(more.size())};
    ids.insert(ids.end(), more.begin(), more.end());
    return range;
  }

  std::vector<int32_t> RowBytes() const {
    static_assert(sizeof(HeddleCudaSampleRow) % sizeof(int32_t) == 0);
    std::vector<int32_t> words(rows.size() * sizeof(HeddleCudaSampleRow) / sizeof(int32_t));
    std::memcpy(words.data(), rows.data(), words.size() * sizeof(int32_t));
    return words;
  }
};

SampleBatch::SampleBatch(TestStream& stream, const std::vector<std::vector<float>>& logits,
                         const std::vector<SampleRow>& rows, int max_logprobs)
    : SampleBatch(stream, logits, rows, FlatRows(rows), max_logprobs) {}

SampleBatch::SampleBatch(TestStream& stream, const std::vector<std::vector<float>>& logits,
                         const std::vector<SampleRow>& rows, const FlatRows& flat, int max_logprobs)
    : history_ends_(flat.history_ends),
      logits_(DeviceArray::From(stream, kHeddleCudaFloat32, Padded(logits, rows.size()))),
      rows_(DeviceArray::Ints(stream, flat.RowBytes())),
      ids_(DeviceArray::Ints(stream, NotEmpty(flat.ids))),
      bias_ids_(DeviceArray::Ints(stream, NotEmpty(flat.bias_ids))),
      biases_(DeviceArray::From(stream, kHeddleCudaFloat32, NotEmpty(flat.biases))),
      history_(DeviceArray::Ints(stream, NotEmpty(flat.history))),
      token_ids_(DeviceArray::Poisoned(stream, kHeddleCudaFloat32, rows.size())),
      sampled_(DeviceArray::Poisoned(stream, kHeddleCudaFloat32, rows.size() * 4)),
      best_ids_(DeviceArray::Poisoned(stream, kHeddleCudaFloat32, rows.size() * HEDDLE_CUDA_MAX_LOGPROBS)),
      best_logprobs_(DeviceArray::Poisoned(stream, kHeddleCudaFloat32, rows.size() * HEDDLE_CUDA_MAX_LOGPROBS)) {
  const auto vocab_size = static_cast<int64_t>(logits[0].size());
  bool is_processed = false;
  for (const SampleRow& row : rows) {
    is_processed |= !row.allowed_ids.empty() || !row.banned_ids.empty() || !row.logit_bias.empty() ||
                    row.repetition_penalty != 1 || row.frequency_penalty != 0 || row.presence_penalty != 0;
    num_best_.push_back(std::min({row.num_logprobs, max_logprobs, static_cast<int>(vocab_size)}));
  }
  op_ = {.logits = Matrix(logits_, kHeddleCudaFloat32, static_cast<int64_t>(rows.size()), vocab_size,
                          StrideOf(logits[0].size())),
         .rows = rows_.As<HeddleCudaSampleRow>(),
         .process_logits = is_processed ? 1 : 0,
         .ids = ids_.As<int32_t>(),
         .bias_ids = bias_ids_.As<int32_t>(),
         .biases = biases_.As<float>(),
         .history = history_.As<int32_t>(),
         .token_ids = token_ids_.As<int32_t>(),
         .sampled = sampled_.As<HeddleCudaSampledToken>(),
         .max_logprobs = max_logprobs,
         .best_ids = best_ids_.As<int32_t>(),
         .best_logprobs = best_logprobs_.As<float>()};
}

std::vector<SampleResult> SampleBatch::Results() const {
  const std::vector<int32_t> token_ids = token_ids_.ToHostInts();
  const std::vector<int32_t> sampled = sampled_.ToHostInts();
  const std::vector<int32_t> best_ids = best_ids_.ToHostInts();
  const std::vector<float> best_logprobs = best_logprobs_.ToHost();
  std::vector<SampleResult> results;
  for (size_t row = 0; row < num_best_.size(); ++row) {
    HeddleCudaSampledToken token;
    std::memcpy(&token, &sampled[row * 4], sizeof(token));
    EXPECT_EQ(token_ids[row], token.token_id);
    SampleResult result = {token.token_id, token.logprob, token.rank, token.failure, {}, {}};
    const size_t begin = row * static_cast<size_t>(std::max(op_.max_logprobs, 0));
    for (int i = 0; i < num_best_[row] && token.failure == kHeddleCudaSampled; ++i) {
      result.best_ids.push_back(best_ids[begin + static_cast<size_t>(i)]);
      result.best_logprobs.push_back(best_logprobs[begin + static_cast<size_t>(i)]);
    }
    // What lies behind is as it was.
    for (size_t i = result.best_ids.size(); i < static_cast<size_t>(std::max(op_.max_logprobs, 0)); ++i) {
      EXPECT_EQ(best_ids[begin + i], -1);
    }
    results.push_back(std::move(result));
  }
  return results;
}

std::vector<std::vector<int32_t>> SampleBatch::Histories() const {
  const std::vector<int32_t> flat = history_.ToHostInts();
  std::vector<std::vector<int32_t>> histories;
  size_t begin = 0;
  for (const size_t end : history_ends_) {
    histories.emplace_back(flat.begin() + static_cast<ptrdiff_t>(begin), flat.begin() + static_cast<ptrdiff_t>(end));
    begin = end;
  }
  return histories;
}

std::vector<SampleResult> Sample(TestStream& stream, const std::vector<std::vector<float>>& logits,
                                 const std::vector<SampleRow>& rows, int max_logprobs) {
  const SampleBatch batch(stream, logits, rows, max_logprobs);
  EXPECT_OK(Api().sample(stream.get(), &batch.op()));
  return batch.Results();
}

std::vector<float> ProcessedLogits(std::vector<float> logits, const SampleRow& row) {
  const auto at = [&](int32_t id) -> float& { return logits[static_cast<size_t>(id)]; };
  if (!row.allowed_ids.empty()) {
    std::vector<float> kept(logits.size(), -kInfinity);
    for (const int32_t id : row.allowed_ids) {
      if (IsIn(id, logits)) kept[static_cast<size_t>(id)] = at(id);
    }
    logits = kept;
  }
  for (const int32_t id : row.banned_ids) {
    if (IsIn(id, logits)) at(id) = -kInfinity;
  }
  for (const auto& [id, bias] : row.logit_bias) {
    if (IsIn(id, logits) && at(id) != -kInfinity) at(id) = Saturate(at(id) + bias);
  }
  std::map<int32_t, int> counts;  // in the output; 0: only in the prompt
  for (size_t i = 0; i < row.token_ids.size(); ++i) {
    if (IsIn(row.token_ids[i], logits)) counts[row.token_ids[i]] += i >= static_cast<size_t>(row.prompt_len) ? 1 : 0;
  }
  for (const auto& [id, count] : counts) {
    float& logit = at(id);
    if (logit == -kInfinity) continue;
    logit = Saturate(logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty);
    if (count == 0) continue;
    logit = Saturate(logit - row.frequency_penalty * static_cast<float>(count));
    logit = Saturate(logit - row.presence_penalty);
  }
  return logits;
}

std::optional<int> ExpectedToken(const std::vector<float>& given_logits, const SampleRow& row) {
  constexpr double kMargin = 1e-5;
  const std::vector<float> logits = ProcessedLogits(given_logits, row);
  const size_t n = logits.size();
  const auto best = std::max_element(logits.begin(), logits.end());
  if (row.temperature == 0) return static_cast<int>(best - logits.begin());
  std::vector<double> weights(n);
  for (size_t i = 0; i < n; ++i) weights[i] = std::exp(static_cast<double>((logits[i] - *best) / row.temperature));
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return weights[a] > weights[b]; });

  size_t kept = n;
  // Whether the next one is nearly, but not quite, as good as the last of `count`.
  const auto close_to_next = [&](size_t count) {
    if (count >= n) return false;
    const double last = weights[order[count - 1]];
    const double next = weights[order[count]];
    return last > 1e-38 && next != last && next > last * (1 - kMargin);
  };
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < n) {
    kept = static_cast<size_t>(row.top_k);
    while (kept < n && weights[order[kept]] == weights[order[kept - 1]]) ++kept;
    if (close_to_next(kept)) return std::nullopt;
  }
  while (kept > 1 && weights[order[kept - 1]] < row.min_p) --kept;
  const double excess = weights[order[kept - 1]] - row.min_p;
  if (row.min_p > 0 && (close_to_next(kept) || (excess != 0 && std::abs(excess) < kMargin * row.min_p))) {
    return std::nullopt;
  }
  if (row.top_p < 1) {
    double total = 0;
    for (size_t i = 0; i < kept; ++i) total += weights[order[i]];
    double sum = 0;
    size_t count = 0;
    while (count < kept && sum < row.top_p * total) {
      sum += weights[order[count++]];
      if (std::abs(sum - row.top_p * total) < kMargin * total) return std::nullopt;
    }
    kept = std::max<size_t>(1, count);
    if (close_to_next(kept)) return std::nullopt;
  }

  for (size_t i = kept; i < n; ++i) weights[order[i]] = 0;
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const double random = UniformForToken(row.seed, static_cast<uint32_t>(row.sequence_index), row.token_ids.size());
  double sum = 0;
  for (size_t i = 0; i < n; ++i) {
    sum += weights[i];
    if (weights[i] > 0 && std::abs(sum - random * total) < kMargin * total) return std::nullopt;
    if (weights[i] > 0 && sum > random * total) return static_cast<int>(i);
  }
  return std::nullopt;
}

std::vector<double> LogSoftmax(const std::vector<float>& logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - max);
  std::vector<double> logprobs;
  for (const float logit : logits) logprobs.push_back(logit - max - std::log(sum));
  return logprobs;
}

}  // namespace heddle::test
