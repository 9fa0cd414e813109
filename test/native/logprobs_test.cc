#include <algorithm>
#include <limits>
#include <numeric>

#include "sampler_testing.h"

namespace heddle {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Logprobs, "reports log-probabilities of the model itself, the chosen token's first") {
  SamplerFixture fixture(5);
  const std::vector<float> logits = {1, 4, 2, -kInfinity, 4};
  const std::vector<double> p = Softmax(logits);
  SamplingParams params;
  params.temperature = 0;
  params.logprobs = 3;
  params.allowed_token_ids = {2};
  params.repetition_penalty = 5;
  const SequenceOutput out = fixture.Sample(logits, params, {2, 2});
  EXPECT_NEAR(out.logprob, std::log(p[2]), 1e-6);
  EXPECT_TRUE((out.logprobs->token_ids == std::vector<int32_t>{2, 1, 4, 2}));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(out.logprobs->logprobs[i], std::log(p[static_cast<size_t>(out.logprobs->token_ids[i])]), 1e-6);
  }
  EXPECT_TRUE((out.logprobs->ranks == std::vector<int32_t>{3}));
}

TEST(Logprobs, "gives the log-probability but no rows when none are asked for, and the chosen token alone for 0") {
  SamplerFixture fixture(2);
  SamplingParams params;
  params.temperature = 0;
  const SequenceOutput without = fixture.Sample({0, 0}, params);
  EXPECT_NEAR(without.logprob, std::log(0.5), 1e-6);
  EXPECT_TRUE(without.logprobs == nullptr);
  params.logprobs = 0;
  const SequenceOutput with = fixture.Sample({0, 0}, params);
  EXPECT_TRUE((with.logprobs->token_ids == std::vector<int32_t>{0}));
  EXPECT_EQ(with.logprobs->size(), 1);
}

TEST(Logprobs, "lists the lower ids of equal logits") {
  SamplerFixture fixture(6);
  LogprobsData data;
  EXPECT_TRUE(fixture.AppendLogprobs({0, 1, 2, 1, 1, 1}, 5, 3, data));
  EXPECT_TRUE((data.token_ids == std::vector<int32_t>{5, 2, 1, 3}));
  EXPECT_TRUE((data.ranks == std::vector<int32_t>{2}));
}

TEST(Logprobs, "ranks by larger logits and orders any number of the best as a full sort does") {
  std::mt19937 random(3);
  constexpr int kSize = 1500;
  SamplerFixture fixture(kSize);
  std::vector<float> logits = RandomLogits(random, kSize, 3);
  for (float& logit : logits) logit = std::round(logit * 2) / 2;  // with many equals
  logits[7] = logits[9] = -kInfinity;
  const std::vector<double> p = Softmax(logits);
  std::vector<int32_t> order(kSize);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  for (const int k : {1, 2, 20, 255, 256, 257, 1000, kSize}) {
    LogprobsData data;
    for (const int32_t token : {0, 7, order[0], order[40]}) {
      EXPECT_TRUE(fixture.AppendLogprobs(logits, token, k, data));
      const size_t row = data.token_ids.size() - static_cast<size_t>(k) - 1;
      EXPECT_EQ(data.token_ids[row], token);
      EXPECT_TRUE(
          std::equal(order.begin(), order.begin() + k, data.token_ids.begin() + static_cast<ptrdiff_t>(row) + 1));
      for (size_t i = row; i < data.token_ids.size(); ++i) {
        const double expected = std::log(p[static_cast<size_t>(data.token_ids[i])]);
        EXPECT_TRUE(data.logprobs[i] == expected || std::abs(data.logprobs[i] - expected) < 2e-5);
      }
      const float chosen = logits[static_cast<size_t>(token)];
      EXPECT_EQ(data.ranks.back(),
                1 + std::count_if(logits.begin(), logits.end(), [&](float logit) { return logit > chosen; }));
    }
    EXPECT_EQ(data.size(), 4);
    EXPECT_EQ(data.k, k);
  }
}

}  // namespace
}  // namespace heddle
