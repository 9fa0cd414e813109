#include "sampler/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "ops/ops.h"
#include "sampler/philox.h"

namespace heddle {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Up to here the k best are found with a heap, which most elements do not enter; beyond, by partitioning.
constexpr size_t kMaxHeapSize = 256;

// Tokens whose weights are summed before they join the running sum. Part of the result: a draw's boundaries are these
// sums. Lanes are summed apart, for speed.
constexpr size_t kBlockSize = 256;
constexpr size_t kLanes = 8;

double SumOfBlock(std::span<const float> weights) {
  double lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= weights.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) lanes[lane] += static_cast<double>(weights[i + lane]);
  }
  for (; i < weights.size(); ++i) lanes[0] += static_cast<double>(weights[i]);
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

std::span<const float> Block(std::span<const float> weights, size_t block) {
  const size_t begin = block * kBlockSize;
  return weights.subspan(begin, std::min(kBlockSize, weights.size() - begin));
}

}  // namespace

Sampler::Sampler(int vocab_size, CpuIsa isa)
    : vocab_size_(static_cast<size_t>(vocab_size)), isa_(isa), processor_(vocab_size), row_(vocab_size_) {}

void Sampler::Sample(std::span<const float> logits, const SamplingInput& input, SequenceOutput& out) {
  HEDDLE_CHECK(logits.size() == vocab_size_, std::to_string(logits.size()));
  const float log_sum = ops::LogSumExp(isa_, logits);
  if (!std::isfinite(log_sum)) {
    out.failure = SequenceFailure::kInvalidLogits;
    return;
  }
  const std::optional<int32_t> token = Choose(logits, input);
  if (!token) {
    out.failure = SequenceFailure::kNoTokenAllowed;
    return;
  }
  out.sampled = true;
  out.token_id = *token;
  out.logprob = logits[static_cast<size_t>(*token)] - log_sum;
  if (input.params->logprobs < 0) return;
  out.logprobs = std::make_unique<LogprobsData>();
  AppendRow(logits, log_sum, *token, input.params->logprobs, *out.logprobs);
}

bool Sampler::AppendLogprobs(std::span<const float> logits, int32_t token_id, int k, LogprobsData& out) {
  HEDDLE_CHECK(logits.size() == vocab_size_, std::to_string(logits.size()));
  const float log_sum = ops::LogSumExp(isa_, logits);
  if (!std::isfinite(log_sum)) return false;
  AppendRow(logits, log_sum, token_id, k, out);
  return true;
}

void Sampler::AppendRow(std::span<const float> logits, float log_sum, int32_t token_id, int k, LogprobsData& out) {
  HEDDLE_CHECK(token_id >= 0 && static_cast<size_t>(token_id) < vocab_size_, std::to_string(token_id));
  HEDDLE_CHECK(k >= 0 && static_cast<size_t>(k) <= vocab_size_, std::to_string(k));
  HEDDLE_CHECK(out.size() == 0 || out.k == k, std::to_string(out.k) + " and " + std::to_string(k));
  out.k = k;
  const float chosen = logits[static_cast<size_t>(token_id)];
  out.token_ids.push_back(token_id);
  out.logprobs.push_back(chosen - log_sum);
  int32_t rank = 1;
  for (const float logit : logits) rank += logit > chosen ? 1 : 0;
  out.ranks.push_back(rank);

  if (k == 0) return;
  SelectBest(logits, static_cast<size_t>(k));
  std::sort(candidates_.begin(), candidates_.end());
  for (const Candidate& candidate : candidates_) {
    out.token_ids.push_back(candidate.id);
    out.logprobs.push_back(candidate.value - log_sum);
  }
}

std::optional<int32_t> Sampler::Choose(std::span<const float> logits, const SamplingInput& input) {
  const SamplingParams& params = *input.params;
  std::span<const float> processed = logits;
  if (LogitsProcessor::IsNeeded(input)) {
    std::copy(logits.begin(), logits.end(), row_.begin());
    processor_.Apply(input, row_);
    processed = row_;
  }
  const size_t best = static_cast<size_t>(ops::ArgMax(isa_, processed));
  if (!std::isfinite(processed[best])) return std::nullopt;
  if (params.temperature == 0) return static_cast<int32_t>(best);

  // The largest is subtracted before the division: the smallest temperature then gives -inf, never +inf or NaN.
  const float max = processed[best];
  for (size_t i = 0; i < vocab_size_; ++i) row_[i] = (processed[i] - max) / params.temperature;

  // All three keep the upper part of one order. top-k before min-p is therefore the same as after it, and finds
  // distinct logits that exp() would make equal.
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < vocab_size_) ApplyTopK(params.top_k, row_);
  ops::ExpAndSum(isa_, 0.0f, row_);
  if (params.min_p > 0) {
    const float threshold = params.min_p * row_[best];
    for (float& weight : row_) weight = weight < threshold ? 0.0f : weight;
  }
  if (params.top_p < 1) ApplyTopP(params.top_p, row_);
  return Draw(UniformForToken(params.seed, static_cast<uint32_t>(input.sequence_index),
                              static_cast<uint64_t>(input.num_tokens())),
              row_);
}

// candidates_ = the k best of `row`, the last of them in the last place, the others in any order. REQUIRES: k >= 1.
void Sampler::SelectBest(std::span<const float> row, size_t k) {
  const size_t num_first = k <= kMaxHeapSize ? k : row.size();
  candidates_.clear();
  for (size_t i = 0; i < num_first; ++i) candidates_.push_back({row[i], static_cast<int32_t>(i)});
  if (k > kMaxHeapSize) {
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(k) - 1, candidates_.end());
    candidates_.resize(k);
    return;
  }
  std::make_heap(candidates_.begin(), candidates_.end());
  for (size_t i = k; i < row.size(); ++i) {
    if (row[i] <= candidates_.front().value) continue;  // an equal one has the higher id
    std::pop_heap(candidates_.begin(), candidates_.end());
    candidates_.back() = {row[i], static_cast<int32_t>(i)};
    std::push_heap(candidates_.begin(), candidates_.end());
  }
  std::pop_heap(candidates_.begin(), candidates_.end());
}

void Sampler::ApplyTopK(int k, std::span<float> row) {
  SelectBest(row, static_cast<size_t>(k));
  const float threshold = candidates_.back().value;
  for (float& logit : row) logit = logit < threshold ? -kInfinity : logit;
}

void Sampler::ApplyTopP(double p, std::span<float> weights) {
  const double total = SumBlocks(weights);
  const double target = p * total;
  // Weights below the average share of what may be dropped weigh less than that together, so none of them is needed.
  const double floor = (total - target) / static_cast<double>(weights.size());
  candidates_.clear();
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] > 0 && static_cast<double>(weights[i]) >= floor) {
      candidates_.push_back({weights[i], static_cast<int32_t>(i)});
    }
  }

  HEDDLE_CHECK(!candidates_.empty(), std::to_string(p));

  // The candidate at which the sum of the ordered candidates reaches the target, by halving the range that holds it.
  auto begin = candidates_.begin();
  auto end = candidates_.end();
  double before = 0;
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end);
    double half = 0;
    for (auto it = begin; it != middle; ++it) half += static_cast<double>(it->value);
    if (before + half >= target) {
      end = middle;
    } else {
      before += half;
      begin = middle;
    }
  }
  const Candidate last = *begin;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (last < Candidate{weights[i], static_cast<int32_t>(i)}) weights[i] = 0;
  }
}

// Fills block_sums_ and returns their sum.
double Sampler::SumBlocks(std::span<const float> weights) {
  block_sums_.clear();
  double total = 0;
  for (size_t begin = 0; begin < weights.size(); begin += kBlockSize) {
    block_sums_.push_back(SumOfBlock(Block(weights, begin / kBlockSize)));
    total += block_sums_.back();
  }
  return total;
}

// The token at which the running sum of the weights exceeds `random` (in [0, 1)) of their total; where rounding keeps
// every sum from that, the last token of positive weight. REQUIRES: some weight is positive.
int32_t Sampler::Draw(double random, std::span<const float> weights) {
  const double target = random * SumBlocks(weights);
  size_t chosen = 0;
  double before_chosen = 0;
  double sum = 0;
  for (size_t block = 0; block < block_sums_.size() && sum <= target; ++block) {
    if (block_sums_[block] == 0) continue;
    chosen = block;
    before_chosen = sum;
    sum += block_sums_[block];
  }
  HEDDLE_CHECK(sum > 0, "no token is left");

  size_t token = 0;
  sum = before_chosen;
  const size_t end = std::min(weights.size(), (chosen + 1) * kBlockSize);
  for (size_t i = chosen * kBlockSize; i < end && sum <= target; ++i) {
    if (weights[i] == 0) continue;
    token = i;
    sum += static_cast<double>(weights[i]);
  }
  return static_cast<int32_t>(token);
}

}  // namespace heddle
