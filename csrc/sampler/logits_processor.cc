#include "sampler/logits_processor.h"

#include <algorithm>
#include <limits>

#include "base/error.h"

namespace heddle {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kMax = std::numeric_limits<float>::max();

bool InVocabulary(int32_t id, std::span<const float> logits) {
  return id >= 0 && static_cast<size_t>(id) < logits.size();
}

void Ban(int32_t id, std::span<float> logits) {
  if (InVocabulary(id, logits)) logits[static_cast<size_t>(id)] = -kInfinity;
}

// Parameters may be as large as floats get; an overflow must not turn into a certainty (+inf) or a NaN.
float Saturate(float logit) { return std::clamp(logit, -kMax, kMax); }

bool PenalizesOutput(const SamplingParams& params) {
  return params.frequency_penalty != 0 || params.presence_penalty != 0;
}

bool IsBelowMinTokens(const SamplingInput& input) { return input.num_generated() < input.params->min_tokens; }

void AddBias(const SamplingParams& params, std::span<float> logits) {
  for (const auto& [id, bias] : params.logit_bias) {
    if (!InVocabulary(id, logits)) continue;
    float& logit = logits[static_cast<size_t>(id)];
    if (logit != -kInfinity) logit = Saturate(logit + bias);
  }
}

}  // namespace

LogitsProcessor::LogitsProcessor(int vocab_size) : counts_(static_cast<size_t>(vocab_size)) {}

bool LogitsProcessor::IsNeeded(const SamplingInput& input) {
  const SamplingParams& params = *input.params;
  return !params.allowed_token_ids.empty() || !params.bad_words.empty() || IsBelowMinTokens(input) ||
         !params.logit_bias.empty() || params.repetition_penalty != 1 || PenalizesOutput(params);
}

std::vector<int32_t> LogitsProcessor::BannedIds(const SamplingInput& input) {
  std::vector<int32_t> banned;
  const std::span<const int32_t> generated = input.generated();
  for (const std::vector<int32_t>& word : input.params->bad_words) {
    if (word.empty() || word.size() - 1 > generated.size()) continue;
    if (std::equal(word.begin(), word.end() - 1, generated.end() - static_cast<ptrdiff_t>(word.size() - 1))) {
      banned.push_back(word.back());
    }
  }
  if (IsBelowMinTokens(input)) {
    banned.insert(banned.end(), input.eos_token_ids.begin(), input.eos_token_ids.end());
    banned.insert(banned.end(), input.params->stop_token_ids.begin(), input.params->stop_token_ids.end());
  }
  return banned;
}

void LogitsProcessor::Apply(const SamplingInput& input, std::span<float> logits) {
  HEDDLE_CHECK(logits.size() == counts_.size(), std::to_string(logits.size()));
  const SamplingParams& params = *input.params;
  if (!params.allowed_token_ids.empty()) KeepAllowed(params.allowed_token_ids, logits);
  for (const int32_t id : BannedIds(input)) Ban(id, logits);
  AddBias(params, logits);
  if (params.repetition_penalty != 1) PenalizeRepetition(params.repetition_penalty, input.token_ids, logits);
  if (PenalizesOutput(params)) PenalizeOutput(params, input.generated(), logits);
}

void LogitsProcessor::KeepAllowed(std::span<const int32_t> allowed, std::span<float> logits) {
  kept_.clear();
  for (const int32_t id : allowed) {
    if (InVocabulary(id, logits)) kept_.push_back(logits[static_cast<size_t>(id)]);
  }
  std::fill(logits.begin(), logits.end(), -kInfinity);
  auto kept = kept_.begin();
  for (const int32_t id : allowed) {
    if (InVocabulary(id, logits)) logits[static_cast<size_t>(id)] = *kept++;
  }
}

void LogitsProcessor::PenalizeRepetition(float penalty, std::span<const int32_t> token_ids, std::span<float> logits) {
  for (const int32_t id : token_ids) {
    if (!InVocabulary(id, logits) || counts_[static_cast<size_t>(id)]++ > 0) continue;
    float& logit = logits[static_cast<size_t>(id)];
    if (logit != -kInfinity) logit = Saturate(logit > 0 ? logit / penalty : logit * penalty);
  }
  for (const int32_t id : token_ids) {
    if (InVocabulary(id, logits)) counts_[static_cast<size_t>(id)] = 0;
  }
}

void LogitsProcessor::PenalizeOutput(const SamplingParams& params, std::span<const int32_t> generated,
                                     std::span<float> logits) {
  for (const int32_t id : generated) {
    if (InVocabulary(id, logits)) ++counts_[static_cast<size_t>(id)];
  }
  for (const int32_t id : generated) {
    if (!InVocabulary(id, logits) || counts_[static_cast<size_t>(id)] == 0) continue;
    float& logit = logits[static_cast<size_t>(id)];
    const float count = static_cast<float>(counts_[static_cast<size_t>(id)]);
    if (logit != -kInfinity) {
      logit = Saturate(logit - params.frequency_penalty * count);
      logit = Saturate(logit - params.presence_penalty);
    }
    counts_[static_cast<size_t>(id)] = 0;
  }
}

}  // namespace heddle
