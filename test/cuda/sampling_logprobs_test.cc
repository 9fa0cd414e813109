// The log-probabilities that `sample` gives.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "sampling_testing.h"

namespace heddle::test {
namespace {

// The row of a given token, and k of the best.
SampleRow Given(int token, int k) {
  SampleRow row;
  row.given_token = token;
  row.num_logprobs = k;
  return row;
}

void ExpectLogprobs(const std::vector<float>& logits, const SampleRow& row, const SampleResult& result) {
  const std::vector<double> logprobs = LogSoftmax(logits);
  const auto near = [&](float actual, int32_t id) {
    const double expected = logprobs[static_cast<size_t>(id)];
    return actual == expected || std::abs(actual - expected) < 2e-5;
  };
  EXPECT_EQ(result.failure, static_cast<int>(kHeddleCudaSampled));
  EXPECT_TRUE(near(result.logprob, result.token_id));
  const float chosen = logits[static_cast<size_t>(result.token_id)];
  EXPECT_EQ(result.rank, row.num_logprobs < 0 ? 0 : 1 + std::count_if(logits.begin(), logits.end(), [&](float logit) {
                                                      return logit > chosen;
                                                    }));
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  const size_t k = std::min(static_cast<size_t>(std::max(row.num_logprobs, 0)), logits.size());
  EXPECT_EQ(result.best_ids.size(), k);
  for (size_t i = 0; i < std::min(k, result.best_ids.size()); ++i) {
    EXPECT_EQ(result.best_ids[i], order[i]);
    EXPECT_TRUE(near(result.best_logprobs[i], order[i]));
  }
}

TEST(CudaLogprobs, "are the model's own, whatever lists, penalties and temperature do to the draw") {
  TestStream stream;
  const std::vector<float> logits = {1, 4, 2, -kInfinity, 4};
  SampleRow row;
  row.temperature = 0;
  row.num_logprobs = 3;
  row.allowed_ids = {2};
  row.repetition_penalty = 5;
  row.token_ids = {2, 2};
  const SampleResult result = Sample(stream, {logits}, {row})[0];
  EXPECT_EQ(result.token_id, 2);
  EXPECT_TRUE((result.best_ids == std::vector<int32_t>{1, 4, 2}));
  EXPECT_EQ(result.rank, 3);
  ExpectLogprobs(logits, row, result);
}

TEST(CudaLogprobs, "come without rank and best tokens when none are asked for") {
  TestStream stream;
  SampleRow row;
  row.temperature = 0;
  const SampleResult without = Sample(stream, {{0, 0}}, {row}, -1)[0];
  EXPECT_NEAR(without.logprob, std::log(0.5), 1e-6);
  EXPECT_EQ(without.rank, 0);
  row.num_logprobs = 0;
  EXPECT_EQ(Sample(stream, {{0, 0}}, {row}, 0)[0].rank, 1);
  EXPECT_EQ(Sample(stream, {{0, 0}}, {row}, -1)[0].rank, 0);
  row.num_logprobs = 2;
  EXPECT_TRUE((Sample(stream, {{0, 0}}, {row}, 1)[0].best_ids == std::vector<int32_t>{0}));
}

TEST(CudaLogprobs, "list the lower ids of equal logits") {
  TestStream stream;
  const SampleResult result = Sample(stream, {{0, 1, 2, 1, 1, 1}}, {Given(5, 3)})[0];
  EXPECT_TRUE((result.best_ids == std::vector<int32_t>{2, 1, 3}));
  EXPECT_EQ(result.rank, 2);
}

TEST(CudaLogprobs, "rank given tokens and order the best as a full sort does") {
  TestStream stream;
  for (const int vocab_size : {1, 2, 33, 1000, 32768, 128256}) {
    std::vector<float> logits = RandomFloats(static_cast<size_t>(vocab_size), 3, 3);
    for (size_t i = 0; i < logits.size(); ++i) {
      if (i % 3 != 0) logits[i] = std::round(logits[i] * 2) / 2;  // with many equals, of either zero
    }
    if (vocab_size > 10) logits[7] = logits[9] = -kInfinity;
    std::vector<SampleRow> rows;
    for (const int k : {-1, 0, 1, 2, 20, 128, 500}) {
      for (const int token : {0, 7, vocab_size / 2, vocab_size - 1}) {
        if (token < vocab_size) rows.push_back(Given(token, std::min(k, HEDDLE_CUDA_MAX_LOGPROBS)));
      }
    }
    const std::vector<SampleResult> results = Sample(stream, {logits}, rows);
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_EQ(results[i].token_id, rows[i].given_token);
      ExpectLogprobs(logits, rows[i], results[i]);
    }
  }
}

TEST(CudaLogprobs, "find the best of rows that are flat, sorted, or finite in one place") {
  TestStream stream;
  for (const int vocab_size : {33, 1000, 128256}) {
    std::vector<std::vector<float>> logits;
    logits.emplace_back(vocab_size, -1.5f);
    logits.emplace_back(vocab_size, -kInfinity);
    logits.back()[17] = 3;
    logits.emplace_back(vocab_size);
    std::iota(logits.back().begin(), logits.back().end(), 0.0f);
    for (float& logit : logits.back()) logit *= 1e-3f;
    logits.push_back(logits.back());
    std::reverse(logits.back().begin(), logits.back().end());
    const std::vector<SampleRow> rows(logits.size(), Given(17, 20));
    const std::vector<SampleResult> results = Sample(stream, logits, rows);
    for (size_t i = 0; i < rows.size(); ++i) ExpectLogprobs(logits[i], rows[i], results[i]);
  }
}

}  // namespace
}  // namespace heddle::test
