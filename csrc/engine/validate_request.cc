#include "engine/validate_request.h"

#include <cmath>
#include <span>
#include <sstream>

#include "base/error.h"

namespace heddle {
namespace {

// The limits of lib/config, in tokens where that counts words.
constexpr int kMaxSequences = 16;
constexpr size_t kMaxTokenList = 1024;
constexpr size_t kMaxAllowedIds = 1 << 20;
constexpr size_t kMaxStopStrings = 16;
constexpr size_t kMaxStopBytes = 256;
constexpr size_t kMaxBadWords = 512;  // 256, each with and without a space before it
constexpr size_t kMaxBadWordTokens = 512;
constexpr size_t kMaxSaltBytes = 128;

[[noreturn]] void Refuse(const std::string& key, const std::string& expectation, const std::string& received) {
  throw Error(ErrorCode::kInvalidArgument, key + " must be " + expectation + ", received " + received);
}

std::string Text(double value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

void CheckNumber(const char* key, double value, double min, double max) {
  if (std::isfinite(value) && value >= min && value <= max) return;
  Refuse(key, "a finite number from " + Text(min) + " to " + Text(max), Text(value));
}

// In (0, max].
void CheckPositive(const char* key, double value, double max) {
  if (value > 0 && value <= max) return;
  Refuse(key, "a finite number greater than 0 and at most " + Text(max), Text(value));
}

void CheckInteger(const char* key, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return;
  Refuse(key, "an integer from " + std::to_string(min) + " to " + std::to_string(max), std::to_string(value));
}

// `what` is what is counted, in the plural.
void CheckCount(const char* key, size_t count, size_t max, const std::string& what) {
  if (count <= max) return;
  Refuse(key, "at most " + std::to_string(max) + " " + what, std::to_string(count));
}

void CheckIds(const char* key, std::span<const int32_t> ids, int vocab_size) {
  for (int32_t id : ids) {
    if (id >= 0 && id < vocab_size) continue;
    Refuse(key, "token ids from 0 to " + std::to_string(vocab_size - 1), std::to_string(id));
  }
}

void CheckSampling(const SamplingParams& params, const RequestLimits& limits) {
  const int vocab_size = limits.vocab_size;
  CheckInteger("n", params.n, 1, kMaxSequences);
  CheckNumber("temperature", params.temperature, 0, 100);
  CheckPositive("topP", params.top_p, 1);
  CheckInteger("topK", params.top_k, 0, INT32_MAX);
  CheckNumber("minP", params.min_p, 0, 1);
  CheckNumber("presencePenalty", params.presence_penalty, -2, 2);
  CheckNumber("frequencyPenalty", params.frequency_penalty, -2, 2);
  CheckPositive("repetitionPenalty", params.repetition_penalty, 10);
  CheckInteger("logprobs", params.logprobs, -1, limits.max_logprobs);
  CheckInteger("promptLogprobs", params.prompt_logprobs, -1, limits.max_logprobs);
  CheckCount("allowedTokenIds", params.allowed_token_ids.size(), kMaxAllowedIds, "ids");
  CheckIds("allowedTokenIds", params.allowed_token_ids, vocab_size);
  CheckCount("badWords", params.bad_words.size(), kMaxBadWords, "token sequences");
  for (const auto& word : params.bad_words) {
    if (word.empty()) Refuse("badWords", "words of at least one token", "an empty one");
    CheckCount("badWords", word.size(), kMaxBadWordTokens, "tokens a word");
    CheckIds("badWords", word, vocab_size);
  }
  CheckCount("logitBias", params.logit_bias.size(), kMaxTokenList, "entries");
  for (const auto& [id, bias] : params.logit_bias) {
    CheckIds("logitBias", {&id, 1}, vocab_size);
    CheckNumber("logitBias", bias, -100, 100);
  }
}

void CheckStopLists(const SamplingParams& params, int vocab_size) {
  CheckCount("stopTokenIds", params.stop_token_ids.size(), kMaxTokenList, "ids");
  CheckIds("stopTokenIds", params.stop_token_ids, vocab_size);
  CheckCount("stop", params.stop.size(), kMaxStopStrings, "strings");
  for (const std::string& stop : params.stop) {
    if (stop.empty()) Refuse("stop", "strings of at least one character", "an empty one");
    CheckCount("stop", stop.size(), kMaxStopBytes, "bytes a string");
  }
}

void CheckStopping(const Request& request, const RequestLimits& limits) {
  const SamplingParams& params = request.sampling_params;
  const int64_t room = limits.max_model_len - static_cast<int64_t>(request.prompt_token_ids.size());
  CheckInteger("maxTokens", params.max_tokens, 1, room);
  CheckInteger("minTokens", params.min_tokens, 0, params.max_tokens);
  CheckInteger("streamInterval", params.stream_interval, 1, 1024);
  CheckStopLists(params, limits.vocab_size);
  const RepetitionDetection& repetition = params.repetition_detection;
  if (repetition.max_pattern_size != 0) {
    CheckInteger("repetitionDetection.maxPatternSize", repetition.max_pattern_size, 1, 256);
    CheckInteger("repetitionDetection.minPatternSize", repetition.min_pattern_size, 1, repetition.max_pattern_size);
    CheckInteger("repetitionDetection.minCount", repetition.min_count, 2, 256);
  }
}

}  // namespace

void ValidateRequest(const Request& request, const RequestLimits& limits) {
  const auto length = static_cast<int64_t>(request.prompt_token_ids.size());
  if (length == 0) Refuse("prompt", "at least one token", "none");
  if (length >= limits.max_model_len) {
    Refuse("prompt", "shorter than maxModelLen, " + std::to_string(limits.max_model_len) + " tokens",
           std::to_string(length) + " tokens");
  }
  CheckIds("prompt", request.prompt_token_ids, limits.vocab_size);
  CheckCount("cacheSalt", request.cache_salt.size(), kMaxSaltBytes, "bytes");
  CheckSampling(request.sampling_params, limits);
  CheckStopping(request, limits);
}

}  // namespace heddle
