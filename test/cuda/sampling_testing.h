// What the tests of `sample` share: rows with everything that belongs to them, and what ought to come of a row by a
// full sort in float64.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "cuda_testing.h"
#include "sampler/philox.h"

namespace heddle::test {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kLargest = std::numeric_limits<float>::max();

struct SampleRow {
  uint64_t seed = 0;
  int sequence_index = 0;
  std::vector<int32_t> token_ids = {0};  // prompt, then generated
  int prompt_len = 1;
  bool has_history = true;  // whether the device is given the tokens
  int given_token = -1;
  int num_logprobs = -1;
  float temperature = 1;
  int top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float frequency_penalty = 0;
  float presence_penalty = 0;
  std::vector<int32_t> allowed_ids;
  std::vector<int32_t> banned_ids;
  std::vector<std::pair<int32_t, float>> logit_bias;
};

struct SampleResult {
  int token_id = 0;
  float logprob = 0;
  int rank = 0;
  int failure = 0;
  std::vector<int32_t> best_ids;
  std::vector<float> best_logprobs;

  bool operator==(const SampleResult&) const = default;
};

struct FlatRows;

// Rows of logits and how they are sampled, in device memory.
class SampleBatch {
 public:
  // One row of `logits` a row, or one for all. NaNs lie between rows.
  SampleBatch(TestStream& stream, const std::vector<std::vector<float>>& logits, const std::vector<SampleRow>& rows,
              int max_logprobs = HEDDLE_CUDA_MAX_LOGPROBS);

  const HeddleCudaSample& op() const { return op_; }
  std::vector<SampleResult> Results() const;
  // The tokens of each row's history, with the place behind them.
  std::vector<std::vector<int32_t>> Histories() const;

 private:
  SampleBatch(TestStream& stream, const std::vector<std::vector<float>>& logits, const std::vector<SampleRow>& rows,
              const FlatRows& flat, int max_logprobs);

  std::vector<size_t> history_ends_;
  std::vector<int> num_best_;
  DeviceArray logits_, rows_, ids_, bias_ids_, biases_, history_, token_ids_, sampled_, best_ids_, best_logprobs_;
  HeddleCudaSample op_;
};

// Runs one batch.
std::vector<SampleResult> Sample(TestStream& stream, const std::vector<std::vector<float>>& logits,
                                 const std::vector<SampleRow>& rows, int max_logprobs = HEDDLE_CUDA_MAX_LOGPROBS);

// What lists and penalties make of the logits.
std::vector<float> ProcessedLogits(std::vector<float> logits, const SampleRow& row);
// The token to expect. Nothing where the answer hangs on the last digits.
std::optional<int> ExpectedToken(const std::vector<float>& logits, const SampleRow& row);
// Logarithms of the model's own distribution.
std::vector<double> LogSoftmax(const std::vector<float>& logits);

}  // namespace heddle::test
