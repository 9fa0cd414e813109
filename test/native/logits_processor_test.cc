#include "sampler/logits_processor.h"

#include <limits>

#include "test.h"

namespace heddle {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kMax = std::numeric_limits<float>::max();

// A sequence whose first `prompt_len` tokens are the prompt.
struct Sequence {
  std::vector<int32_t> token_ids;
  int prompt_len = 0;
  std::vector<int32_t> eos_token_ids;
};

std::vector<float> Process(const SamplingParams& params, const Sequence& sequence, std::vector<float> logits) {
  const SamplingInput input{&params, sequence.token_ids, sequence.prompt_len, 0, sequence.eos_token_ids};
  LogitsProcessor processor(static_cast<int>(logits.size()));
  const std::vector<float> before = logits;
  processor.Apply(input, logits);
  if (!LogitsProcessor::IsNeeded(input)) EXPECT_TRUE(logits == before);
  return logits;
}

TEST(LogitsProcessor, "is not needed with the default parameters") {
  const SamplingParams params;
  const std::vector<int32_t> tokens = {0, 1};
  EXPECT_TRUE(!LogitsProcessor::IsNeeded({&params, tokens, 1, 0, {}}));
}

TEST(LogitsProcessor, "leaves nothing but the allowed ids, of which unknown and repeated ones do no harm") {
  SamplingParams params;
  params.allowed_token_ids = {3, 1, 3, -1, 4, 1000000};
  EXPECT_TRUE((Process(params, {}, {1, 2, 3, 4}) == std::vector<float>{-kInfinity, 2, -kInfinity, 4}));
}

TEST(LogitsProcessor, "bans a bad word of one token always") {
  SamplingParams params;
  params.bad_words = {{2}, {-5}, {99}, {}};
  EXPECT_TRUE((Process(params, {{0}, 1, {}}, {1, 2, 3, 4}) == std::vector<float>{1, 2, -kInfinity, 4}));
}

TEST(LogitsProcessor, "bans the end of a bad word where the generated tokens end with its beginning") {
  SamplingParams params;
  params.bad_words = {{0, 1, 2}};
  const std::vector<float> banned = {1, 2, -kInfinity, 4};
  const std::vector<float> free = {1, 2, 3, 4};
  EXPECT_TRUE(Process(params, {{3, 0, 1}, 1, {}}, free) == banned);
  EXPECT_TRUE(Process(params, {{3, 3, 0, 1}, 1, {}}, free) == banned);
  EXPECT_TRUE(Process(params, {{3, 0, 1, 3}, 1, {}}, free) == free);
  EXPECT_TRUE(Process(params, {{3, 1}, 1, {}}, free) == free);
}

TEST(LogitsProcessor, "does not look for bad words in the prompt") {
  SamplingParams params;
  params.bad_words = {{0, 1, 2}};
  const std::vector<float> free = {1, 2, 3, 4};
  EXPECT_TRUE(Process(params, {{0, 1}, 2, {}}, free) == free);
  EXPECT_TRUE(Process(params, {{0, 1}, 1, {}}, free) == free);
}

TEST(LogitsProcessor, "bans every stop id until min_tokens were generated, end of sequence also under ignore_eos") {
  SamplingParams params;
  params.min_tokens = 2;
  params.stop_token_ids = {0, 77};
  const std::vector<float> banned = {-kInfinity, 2, 3, -kInfinity};
  const std::vector<float> free = {1, 2, 3, 4};
  for (const bool ignore_eos : {false, true}) {
    params.ignore_eos = ignore_eos;
    EXPECT_TRUE(Process(params, {{1, 1, 1}, 3, {3, -1}}, free) == banned);
    EXPECT_TRUE(Process(params, {{1, 1, 1, 2}, 3, {3, -1}}, free) == banned);
    EXPECT_TRUE(Process(params, {{1, 1, 1, 2, 2}, 3, {3, -1}}, free) == free);
  }
}

TEST(LogitsProcessor, "adds biases to known ids") {
  SamplingParams params;
  params.logit_bias = {{1, 0.5f}, {2, -100.0f}, {-1, 9.0f}, {4, 9.0f}};
  EXPECT_TRUE((Process(params, {}, {1, 2, 3, 4}) == std::vector<float>{1, 2.5f, -97, 4}));
}

TEST(LogitsProcessor, "penalises repetition once a token, of prompt and output, dividing positives") {
  SamplingParams params;
  params.repetition_penalty = 2;
  const std::vector<float> logits = {4, -4, 4, -4, 0};
  EXPECT_TRUE((Process(params, {{0, 0, 1, 4, 99, -1}, 2, {}}, logits) == std::vector<float>{2, -8, 4, -4, 0}));
  EXPECT_TRUE((Process(params, {{0, 1}, 2, {}}, logits) == std::vector<float>{2, -8, 4, -4, 0}));
}

TEST(LogitsProcessor, "penalises frequency by count and presence once, in the output only") {
  SamplingParams params;
  params.frequency_penalty = 0.5f;
  const std::vector<float> logits = {4, 4, 4, 4};
  const Sequence sequence = {{0, 0, 3, 1, 1, 1, 2, 99, -1}, 3, {}};
  EXPECT_TRUE((Process(params, sequence, logits) == std::vector<float>{4, 2.5f, 3.5f, 4}));
  params.presence_penalty = 0.25f;
  EXPECT_TRUE((Process(params, sequence, logits) == std::vector<float>{4, 2.25f, 3.25f, 4}));
  params.frequency_penalty = 0;
  EXPECT_TRUE((Process(params, sequence, logits) == std::vector<float>{4, 3.75f, 3.75f, 4}));
  params.presence_penalty = -1;
  EXPECT_TRUE((Process(params, sequence, logits) == std::vector<float>{4, 5, 5, 4}));
}

TEST(LogitsProcessor, "applies bias, then repetition, then frequency and presence") {
  SamplingParams params;
  params.logit_bias = {{1, 3.0f}};
  params.repetition_penalty = 2;
  params.frequency_penalty = 0.5f;
  params.presence_penalty = 0.25f;
  // (1 + 3) / 2 - 2 * 0.5 - 0.25
  EXPECT_TRUE((Process(params, {{0, 1, 1}, 1, {}}, {0, 1}) == std::vector<float>{0, 0.75f}));
}

TEST(LogitsProcessor, "lets neither bias nor penalty bring back a banned token") {
  SamplingParams params;
  params.allowed_token_ids = {0, 1, 2};
  params.bad_words = {{1}};
  params.min_tokens = 9;
  params.logit_bias = {{1, kMax}, {2, kMax}, {3, kMax}};
  params.repetition_penalty = 0.5f;
  params.frequency_penalty = -kMax;
  params.presence_penalty = -kMax;
  const std::vector<float> logits = Process(params, {{0, 1, 2, 3, 1, 2, 3}, 1, {2}}, {1, 1, 1, 1});
  EXPECT_TRUE((logits == std::vector<float>{2, -kInfinity, -kInfinity, -kInfinity}));
}

TEST(LogitsProcessor, "saturates where parameters are absurd, instead of making infinities or NaNs") {
  SamplingParams params;
  params.logit_bias = {{0, kMax}, {1, -kMax}};
  params.repetition_penalty = std::numeric_limits<float>::denorm_min();
  params.frequency_penalty = -kMax;
  params.presence_penalty = kMax;
  const Sequence sequence = {{0, 1, 2, 2, 2}, 0, {}};
  for (const float logit : Process(params, sequence, {kMax, -kMax, 1})) EXPECT_TRUE(std::isfinite(logit));
}

TEST(LogitsProcessor, "carries nothing from one sequence to the next") {
  LogitsProcessor processor(3);
  SamplingParams params;
  params.repetition_penalty = 2;
  params.frequency_penalty = 1;
  for (const int32_t id : {0, 1, 2, 0}) {
    const std::vector<int32_t> tokens = {id, id};
    std::vector<float> expected = {8, 8, 8};
    expected[static_cast<size_t>(id)] = 3;  // 8 / 2 - 1
    std::vector<float> logits = {8, 8, 8};
    processor.Apply({&params, tokens, 1, 0, {}}, logits);
    EXPECT_TRUE(logits == expected);
  }
}

}  // namespace
}  // namespace heddle
