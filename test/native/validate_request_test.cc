// The last check of a request: what it lets pass, and that what it refuses is named.
#include "engine/validate_request.h"

#include <functional>
#include <limits>

#include "test.h"

namespace heddle {
namespace {

constexpr RequestLimits kLimits = {.vocab_size = 100, .max_model_len = 50, .max_logprobs = 20};

Request Plain() {
  Request request;
  request.prompt_token_ids = {0, 99};
  request.sampling_params.max_tokens = 48;
  return request;
}

TEST(ValidateRequest, "lets everything pass at its limit") {
  Request request = Plain();
  SamplingParams& params = request.sampling_params;
  params.n = 16;
  params.top_p = params.repetition_penalty = std::numeric_limits<float>::denorm_min();
  params.logprobs = params.prompt_logprobs = 20;
  params.min_tokens = 48;
  params.stop.assign(16, std::string(256, 'x'));
  params.stop_token_ids.assign(1024, 99);
  params.logit_bias.assign(1024, {99, -100.0f});
  params.allowed_token_ids.assign(1 << 20, 99);
  params.bad_words.assign(512, {1, 2});
  params.stream_interval = 1024;
  params.repetition_detection = {256, 256, 256};
  request.cache_salt = std::string(128, 's');
  ValidateRequest(request, kLimits);
  EXPECT_EQ(request.sampling_params.n, 16);
}

TEST(ValidateRequest, "refuses what is beyond a limit by the name of its key") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  struct Case {
    const char* key;
    std::function<void(Request&, SamplingParams&)> change;
  };
  const std::vector<Case> cases = {
      {"prompt", [](Request& r, SamplingParams&) { r.prompt_token_ids.clear(); }},
      {"prompt", [](Request& r, SamplingParams&) { r.prompt_token_ids.assign(50, 1); }},
      {"prompt", [](Request& r, SamplingParams&) { r.prompt_token_ids = {100}; }},
      {"cacheSalt", [](Request& r, SamplingParams&) { r.cache_salt = std::string(129, 's'); }},
      {"n", [](Request&, SamplingParams& p) { p.n = 17; }},
      {"temperature", [=](Request&, SamplingParams& p) { p.temperature = nan; }},
      {"topP", [](Request&, SamplingParams& p) { p.top_p = 0; }},
      {"topP", [=](Request&, SamplingParams& p) { p.top_p = nan; }},
      {"repetitionPenalty", [](Request&, SamplingParams& p) { p.repetition_penalty = 0; }},
      {"repetitionPenalty", [](Request&, SamplingParams& p) { p.repetition_penalty = 10.5f; }},
      {"logprobs", [](Request&, SamplingParams& p) { p.logprobs = 21; }},
      {"promptLogprobs", [](Request&, SamplingParams& p) { p.prompt_logprobs = 100; }},
      {"maxTokens", [](Request&, SamplingParams& p) { p.max_tokens = 49; }},
      {"minTokens", [](Request&, SamplingParams& p) { p.min_tokens = 49; }},
      {"stopTokenIds", [](Request&, SamplingParams& p) { p.stop_token_ids = {-1}; }},
      {"stopTokenIds", [](Request&, SamplingParams& p) { p.stop_token_ids.assign(1025, 1); }},
      {"stop", [](Request&, SamplingParams& p) { p.stop = {""}; }},
      {"stop", [](Request&, SamplingParams& p) { p.stop.assign(17, "x"); }},
      {"stop", [](Request&, SamplingParams& p) { p.stop = {std::string(257, 'x')}; }},
      {"allowedTokenIds", [](Request&, SamplingParams& p) { p.allowed_token_ids = {100}; }},
      {"allowedTokenIds", [](Request&, SamplingParams& p) { p.allowed_token_ids.assign((1 << 20) + 1, 1); }},
      {"badWords", [](Request&, SamplingParams& p) { p.bad_words = {{}}; }},
      {"badWords", [](Request&, SamplingParams& p) { p.bad_words.assign(513, {1}); }},
      {"badWords", [](Request&, SamplingParams& p) { p.bad_words = {std::vector<int32_t>(513, 1)}; }},
      {"logitBias",
       [](Request&, SamplingParams& p) {
         p.logit_bias = {{1, 101.0f}};
       }},
      {"logitBias",
       [](Request&, SamplingParams& p) {
         p.logit_bias.assign(1025, {1, 1.0f});
       }},
      {"streamInterval", [](Request&, SamplingParams& p) { p.stream_interval = 0; }},
      {"repetitionDetection.minCount",
       [](Request&, SamplingParams& p) {
         p.repetition_detection = {1, 1, 1};
       }},
  };
  for (const Case& bad : cases) {
    Request request = Plain();
    bad.change(request, request.sampling_params);
    std::string message;
    try {
      ValidateRequest(request, kLimits);
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::kInvalidArgument);
      message = error.what();
    }
    EXPECT_EQ(message.substr(0, message.find(" must be ")), bad.key);
  }
}

}  // namespace
}  // namespace heddle
