#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <set>

#include "sampler/philox.h"
#include "sampler_testing.h"

namespace heddle {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

double ChiSquare(const std::vector<int>& histogram, const std::vector<double>& probabilities) {
  const double count = std::accumulate(histogram.begin(), histogram.end(), 0.0);
  double sum = 0;
  for (size_t i = 0; i < histogram.size(); ++i) {
    const double expected = count * probabilities[i];
    sum += (histogram[i] - expected) * (histogram[i] - expected) / expected;
  }
  return sum;
}

// What the header promises, computed by a full sort in float64. Nothing where the answer hangs on the last digits.
std::optional<int> ReferenceToken(const std::vector<float>& logits, const SamplingParams& params, double random) {
  constexpr double kMargin = 1e-5;
  const size_t n = logits.size();
  const float max = *std::max_element(logits.begin(), logits.end());
  std::vector<double> weights(n);
  for (size_t i = 0; i < n; ++i) weights[i] = std::exp(static_cast<double>((logits[i] - max) / params.temperature));
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return weights[a] > weights[b]; });

  size_t kept = n;
  const auto close_to_next = [&](size_t count) {
    return count < n && weights[order[count - 1]] > 0 &&
           weights[order[count]] > weights[order[count - 1]] * (1 - kMargin);
  };
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < n) {
    kept = static_cast<size_t>(params.top_k);
    if (close_to_next(kept)) return std::nullopt;
  }
  while (kept > 1 && weights[order[kept - 1]] < params.min_p) --kept;
  if (params.min_p > 0 && close_to_next(kept)) return std::nullopt;
  if (params.top_p < 1) {
    double total = 0;
    for (size_t i = 0; i < kept; ++i) total += weights[order[i]];
    double sum = 0;
    size_t count = 0;
    while (count < kept && sum < params.top_p * total) {
      sum += weights[order[count++]];
      if (std::abs(sum - params.top_p * total) < kMargin * total) return std::nullopt;
    }
    kept = std::max<size_t>(1, count);
    if (close_to_next(kept)) return std::nullopt;
  }

  for (size_t i = kept; i < n; ++i) weights[order[i]] = 0;
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0;
  for (size_t i = 0; i < n; ++i) {
    sum += weights[i];
    if (std::abs(sum - random * total) < kMargin * total) return std::nullopt;
    if (weights[i] > 0 && sum > random * total) return static_cast<int>(i);
  }
  return std::nullopt;
}

TEST(Sampler, "takes the largest logit when greedy, the lowest id among equals, whatever the filters") {
  SamplerFixture fixture(5);
  SamplingParams params;
  params.temperature = 0;
  params.top_p = 0.01f;
  params.top_k = 3;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    params.seed = seed;
    EXPECT_EQ(fixture.Sample({1, 3, -2, 3, 3}, params).token_id, 1);
  }
}

TEST(Sampler, "is greedy over the processed logits") {
  SamplerFixture fixture(3);
  SamplingParams params;
  params.temperature = 0;
  params.bad_words = {{2}};
  params.logit_bias = {{0, 5.0f}};
  EXPECT_EQ(fixture.Sample({1, 2, 30}, params).token_id, 0);
}

TEST(Sampler, "agrees with a full sort in float64 for every mixture of filters") {
  std::mt19937 random(1);
  int compared = 0;
  int undecided = 0;
  for (const int size : {1, 2, 7, 255, 256, 257, 2000}) {
    SamplerFixture fixture(size);
    for (int round = 0; round < 400; ++round) {
      const auto pick = [&](auto... values) {
        const std::vector<float> list = {static_cast<float>(values)...};
        return list[random() % list.size()];
      };
      std::vector<float> logits = RandomLogits(random, size, pick(0.1, 1, 5, 30));
      for (float& logit : logits) {
        if (random() % 10 == 0 && &logit != &logits[0]) logit = -kInfinity;
      }
      SamplingParams params;
      params.temperature = pick(0.05, 0.7, 1, 2);
      params.top_k = static_cast<int>(pick(0, 0, 1, 2, 40, 256, 300, size, size + 5));
      params.top_p = pick(1, 1, 0.01, 0.5, 0.9, 0.999);
      params.min_p = pick(0, 0, 0.001, 0.3, 1);
      params.seed = random();
      const std::vector<int32_t> tokens(random() % 50 + 1);
      const std::optional<int> expected =
          ReferenceToken(logits, params, UniformForToken(params.seed, 2, tokens.size()));
      const SequenceOutput out = fixture.Sample(logits, params, tokens, 1, 2);
      EXPECT_TRUE(out.sampled && out.failure == SequenceFailure::kNone);
      EXPECT_TRUE(std::isfinite(logits[static_cast<size_t>(out.token_id)]));
      if (expected) EXPECT_EQ(out.token_id, *expected);
      ++(expected ? compared : undecided);
    }
  }
  EXPECT_TRUE(compared > 20 * undecided);
}

TEST(Sampler, "draws tokens as often as their probabilities say") {
  SamplerFixture fixture(8);
  const std::vector<float> logits = {0, 1, -1, 0.5f, 2, -2, 0.1f, 1.5f};
  SamplingParams params;
  for (const float temperature : {0.7f, 1.0f, 3.0f}) {
    params.temperature = temperature;
    // 99.9 % of fair generators stay below 24.3 with 7 degrees of freedom; the seeds are fixed.
    EXPECT_TRUE(ChiSquare(fixture.Histogram(logits, params, 20000), Softmax(logits, temperature)) < 24.3);
  }
}

TEST(Sampler, "draws from what biases and penalties made of the logits") {
  SamplerFixture fixture(4);
  SamplingParams params;
  params.logit_bias = {{0, 101.0f}, {1, 100.0f}, {2, 99.0f}};
  params.presence_penalty = 1;
  params.temperature = 0.5f;
  const std::vector<double> expected = Softmax({100, 100, 99, 99}, 0.5);
  std::vector<int> histogram(4);
  for (uint64_t seed = 0; seed < 10000; ++seed) {
    params.seed = seed;
    ++histogram[static_cast<size_t>(fixture.Sample({0, 0, 0, 99}, params, {3, 0}, 1).token_id)];
  }
  EXPECT_TRUE(ChiSquare(histogram, expected) < 16.3);
}

TEST(Sampler, "draws independently for neighbouring positions and sequences") {
  SamplerFixture fixture(4);
  const std::vector<float> logits = {0, 0, 0, 0};
  const SamplingParams params;
  std::vector<int> positions(16);
  std::vector<int> sequences(16);
  std::vector<int32_t> tokens = {0};
  int previous = 0;
  for (int i = 0; i < 8000; ++i) {
    tokens.push_back(0);
    const int first = fixture.Sample(logits, params, tokens, 1, 0).token_id;
    const int second = fixture.Sample(logits, params, tokens, 1, 1).token_id;
    ++positions[static_cast<size_t>(previous * 4 + first)];
    ++sequences[static_cast<size_t>(first * 4 + second)];
    previous = first;
  }
  const std::vector<double> uniform(16, 1.0 / 16);
  EXPECT_TRUE(ChiSquare(positions, uniform) < 37.7);
  EXPECT_TRUE(ChiSquare(sequences, uniform) < 37.7);
}

TEST(Sampler, "repeats a token when it is replayed, whatever was sampled in between and where the prompt ends") {
  std::mt19937 random(2);
  SamplerFixture fixture(300);
  SamplingParams params;
  params.seed = 11;
  params.top_p = 0.95f;
  const std::vector<float> logits = RandomLogits(random, 300, 2);
  const std::vector<int32_t> tokens(40, 3);
  const int32_t token = fixture.Sample(logits, params, tokens, 10).token_id;
  SamplingParams other = params;
  other.repetition_penalty = 3;
  fixture.Sample(RandomLogits(random, 300, 2), other, tokens, 3, 5);
  EXPECT_EQ(fixture.Sample(logits, params, tokens, 10).token_id, token);
  EXPECT_EQ(fixture.Sample(logits, params, tokens, 40).token_id, token);
  EXPECT_EQ(SamplerFixture(300).Sample(logits, params, tokens, 10).token_id, token);
}

TEST(Sampler, "never draws a banned token, not even from a flat distribution that ends in banned ones") {
  SamplerFixture fixture(1000);
  std::vector<float> logits(1000, 0.0f);
  for (size_t i = 0; i < 1000; ++i) {
    if (i % 7 != 3 || i > 900) logits[i] = -kInfinity;
  }
  SamplingParams params;
  params.temperature = 1e30f;
  const std::vector<int> histogram = fixture.Histogram(logits, params, 5000);
  for (size_t i = 0; i < 1000; ++i) EXPECT_EQ(histogram[i] > 0, logits[i] == 0);
}

TEST(Sampler, "keeps with top-k whatever equals the k-th") {
  SamplerFixture fixture(6);
  SamplingParams params;
  params.top_k = 2;
  EXPECT_TRUE((fixture.Support({0, 2, 2, 3, 1, 2}, params) == std::set<int>{1, 2, 3, 5}));
  params.top_k = 1;
  EXPECT_TRUE((fixture.Support({0, 2, 2, 3, 1, 2}, params) == std::set<int>{3}));
}

TEST(Sampler, "keeps with top-k logits apart that differ by less than probabilities can") {
  SamplerFixture fixture(2);
  SamplingParams params;
  params.top_k = 1;
  EXPECT_TRUE((fixture.Support({0, 1e-9f}, params) == std::set<int>{1}));
}

TEST(Sampler, "keeps with top-p the fewest tokens that reach the mass, the lower id among equals, at least one") {
  SamplerFixture fixture(8);
  const std::vector<float> flat(8, 1.0f);
  SamplingParams params;
  params.top_p = 0.5f;
  EXPECT_TRUE((fixture.Support(flat, params) == std::set<int>{0, 1, 2, 3}));
  params.top_p = 0.51f;
  EXPECT_TRUE((fixture.Support(flat, params) == std::set<int>{0, 1, 2, 3, 4}));
  params.top_p = 1e-20f;
  EXPECT_TRUE((fixture.Support(flat, params) == std::set<int>{0}));
  EXPECT_TRUE((fixture.Support({0, 0, 0, 9, 0, 9, 0, 0}, params) == std::set<int>{3}));
}

TEST(Sampler, "measures top-p on what top-k and min-p left") {
  // Probabilities 0.4, 0.3, 0.2, 0.1.
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.1f)};
  SamplerFixture fixture(4);
  SamplingParams params;
  params.top_p = 0.5f;
  EXPECT_TRUE((fixture.Support(logits, params) == std::set<int>{0, 1}));
  params.top_k = 2;  // 0.4 / 0.7 > 0.5
  EXPECT_TRUE((fixture.Support(logits, params) == std::set<int>{0}));
  params.top_k = 0;
  params.min_p = 0.6f;
  EXPECT_TRUE((fixture.Support(logits, params) == std::set<int>{0}));
}

TEST(Sampler, "keeps with min-p what is that fraction as likely as the likeliest, after temperature") {
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.1f)};
  SamplerFixture fixture(4);
  SamplingParams params;
  params.min_p = 0.4f;
  EXPECT_TRUE((fixture.Support(logits, params) == std::set<int>{0, 1, 2}));
  params.min_p = 1;
  EXPECT_TRUE((fixture.Support(logits, params) == std::set<int>{0}));
  params.min_p = 0.4f;
  params.temperature = 2;
  EXPECT_TRUE((fixture.Support(logits, params) == std::set<int>{0, 1, 2, 3}));
}

TEST(Sampler, "works at the ends of the range of temperatures and logits") {
  SamplerFixture fixture(4);
  constexpr float kMax = std::numeric_limits<float>::max();
  SamplingParams params;
  params.temperature = std::numeric_limits<float>::denorm_min();
  EXPECT_TRUE((fixture.Support({1, 2, 3, 2.5f}, params) == std::set<int>{2}));
  EXPECT_TRUE((fixture.Support({-kMax, kMax, 0, -kInfinity}, params) == std::set<int>{1}));
  params.temperature = kMax;
  EXPECT_TRUE((fixture.Support({1, 2, 3, 2.5f}, params) == std::set<int>{0, 1, 2, 3}));
  SamplerFixture one(1);
  EXPECT_EQ(one.Sample({-5}, params).token_id, 0);
}

TEST(Sampler, "says why it samples nothing when logits are not numbers or no token is allowed") {
  SamplerFixture fixture(4);
  SamplingParams params;
  params.logprobs = 2;
  SamplingParams banned = params;
  banned.allowed_token_ids = {1, 2};
  banned.bad_words = {{1}, {2}};
  for (const float temperature : {0.0f, 1.0f}) {
    params.temperature = banned.temperature = temperature;
    const SequenceOutput outputs[] = {fixture.Sample({kNaN, 1, 2, 3}, params), fixture.Sample({1, 2, 3, kNaN}, params),
                                      fixture.Sample({1, kInfinity, 3, 4}, params),
                                      fixture.Sample({-kInfinity, -kInfinity, -kInfinity, -kInfinity}, params),
                                      fixture.Sample({kNaN, 2, 3, 4}, banned)};
    for (const SequenceOutput& out : outputs) {
      EXPECT_TRUE(out.failure == SequenceFailure::kInvalidLogits && !out.sampled);
      EXPECT_TRUE(out.logprobs == nullptr);
    }
    const SequenceOutput none_left = fixture.Sample({1, 2, 3, 4}, banned);
    EXPECT_TRUE(none_left.failure == SequenceFailure::kNoTokenAllowed && !none_left.sampled);
    EXPECT_TRUE(none_left.logprobs == nullptr);
  }
  LogprobsData data;
  EXPECT_TRUE(!fixture.AppendLogprobs({1, kNaN, 2, 3}, 0, 1, data));
  EXPECT_EQ(data.size(), 0);
}

}  // namespace
}  // namespace heddle
