// Which token `sample` takes. The CPU sampler's own tests say the same of it.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <set>

#include "sampling_testing.h"

namespace heddle::test {
namespace {

constexpr int kSampled = kHeddleCudaSampled;

std::vector<std::vector<float>> RandomRows(std::mt19937& random, size_t num_rows, int vocab_size) {
  std::vector<std::vector<float>> rows;
  for (size_t row = 0; row < num_rows; ++row) {
    const float scales[] = {0.1f, 1, 5, 30};
    rows.push_back(RandomFloats(static_cast<size_t>(vocab_size), random(), scales[row % 4]));
    for (float& logit : rows.back()) {
      if (random() % 10 == 0 && &logit != rows.back().data()) logit = -kInfinity;
    }
  }
  return rows;
}

std::vector<int32_t> RandomIds(std::mt19937& random, size_t count, int vocab_size) {
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % static_cast<unsigned>(vocab_size));
  return ids;
}

template <typename... Values>
float Pick(std::mt19937& random, Values... values) {
  const float list[] = {static_cast<float>(values)...};
  return list[random() % sizeof...(values)];
}

SampleRow RandomFilters(std::mt19937& random, int vocab_size) {
  SampleRow row;
  row.seed = (uint64_t{random()} << 32) | random();
  row.sequence_index = static_cast<int>(random() % 5);
  row.token_ids = RandomIds(random, random() % 50 + 1, vocab_size);
  row.prompt_len = static_cast<int>(random() % row.token_ids.size()) + 1;
  row.temperature = Pick(random, 0, 0.05, 0.7, 1, 1, 2);
  row.top_k = static_cast<int>(Pick(random, 0, 0, 1, 2, 40, 256, 300, vocab_size, vocab_size + 5));
  row.top_p = Pick(random, 1, 1, 0.01, 0.5, 0.9, 0.999);
  row.min_p = Pick(random, 0, 0, 0.001, 0.3, 1);
  return row;
}

void AddRules(std::mt19937& random, int vocab_size, SampleRow& row) {
  row.repetition_penalty = Pick(random, 1, 1.3, 0.8, 5);
  row.frequency_penalty = Pick(random, 0, 0.5, -0.3);
  row.presence_penalty = Pick(random, 0, 1, -2);
  row.token_ids = RandomIds(random, random() % 3000 + 1, std::max(1, vocab_size / 2));
  row.token_ids.push_back(vocab_size);  // not in the vocabulary: no harm
  row.token_ids.push_back(-1);
  row.prompt_len = static_cast<int>(random() % row.token_ids.size()) + 1;
  if (random() % 3 == 0) row.allowed_ids = RandomIds(random, static_cast<size_t>(vocab_size) / 2 + 1, vocab_size);
  if (random() % 2 == 0) row.banned_ids = RandomIds(random, random() % 600, vocab_size);
  std::set<int32_t> biased;
  for (unsigned i = random() % 300; i > 0; --i) biased.insert(static_cast<int32_t>(random() % (vocab_size + 2)) - 1);
  for (const int32_t id : biased) row.logit_bias.emplace_back(id, Pick(random, 100, -100, 3, -0.5));
}

// Counts the rows whose token can be told.
int ExpectAgreement(TestStream& stream, const std::vector<std::vector<float>>& logits,
                    const std::vector<SampleRow>& rows) {
  const std::vector<SampleResult> results = Sample(stream, logits, rows);
  int compared = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<float> processed = ProcessedLogits(logits[i], rows[i]);
    if (*std::max_element(processed.begin(), processed.end()) == -kInfinity) {
      EXPECT_EQ(results[i].failure, static_cast<int>(kHeddleCudaNoTokenAllowed));
      ++compared;
      continue;
    }
    EXPECT_EQ(results[i].failure, kSampled);
    EXPECT_TRUE(std::isfinite(processed[static_cast<size_t>(results[i].token_id)]));
    const std::vector<double> logprobs = LogSoftmax(logits[i]);
    EXPECT_NEAR(results[i].logprob, logprobs[static_cast<size_t>(results[i].token_id)], 2e-5);
    const std::optional<int> expected = ExpectedToken(logits[i], rows[i]);
    if (!expected) continue;
    EXPECT_EQ(results[i].token_id, *expected);
    ++compared;
  }
  return compared;
}

// The tokens that are drawn from one row of logits with seeds 0 .. count - 1, and how often.
std::vector<int> Histogram(TestStream& stream, const std::vector<float>& logits, SampleRow row, int count) {
  std::vector<SampleRow> rows(static_cast<size_t>(count), row);
  for (size_t i = 0; i < rows.size(); ++i) rows[i].seed = i;
  std::vector<int> histogram(logits.size());
  for (const SampleResult& result : Sample(stream, {logits}, rows, -1)) {
    EXPECT_EQ(result.failure, kSampled);
    ++histogram[static_cast<size_t>(result.token_id)];
  }
  return histogram;
}

std::set<int> Support(TestStream& stream, const std::vector<float>& logits, const SampleRow& row) {
  std::set<int> support;
  const std::vector<int> histogram = Histogram(stream, logits, row, 500);
  for (size_t i = 0; i < histogram.size(); ++i) {
    if (histogram[i] > 0) support.insert(static_cast<int>(i));
  }
  return support;
}

double ChiSquare(const std::vector<int>& histogram, const std::vector<double>& probabilities) {
  const double count = std::accumulate(histogram.begin(), histogram.end(), 0.0);
  double sum = 0;
  for (size_t i = 0; i < histogram.size(); ++i) {
    const double expected = count * probabilities[i];
    sum += (histogram[i] - expected) * (histogram[i] - expected) / expected;
  }
  return sum;
}

std::vector<double> Softmax(const std::vector<float>& logits, double temperature = 1) {
  std::vector<float> scaled = logits;
  for (float& logit : scaled) logit = static_cast<float>(logit / temperature);
  std::vector<double> p = LogSoftmax(scaled);
  for (double& x : p) x = std::exp(x);
  return p;
}

TEST(CudaSample, "takes the largest logit when greedy, the lowest id among equals, whatever the filters") {
  TestStream stream;
  SampleRow greedy;
  greedy.temperature = 0;
  greedy.top_k = 3;
  greedy.top_p = 0.01f;
  EXPECT_EQ(Sample(stream, {{1, 3, -2, 3, 3}}, {greedy})[0].token_id, 1);
  EXPECT_EQ(Sample(stream, {{-kInfinity, -0.0f, 0.0f}}, {greedy})[0].token_id, 1);
  for (const int vocab_size : {1, 2, 33, 1000, 32768, 128256}) {
    std::vector<float> logits(static_cast<size_t>(vocab_size), -kLargest);
    EXPECT_EQ(Sample(stream, {logits}, {greedy})[0].token_id, 0);
    logits.back() = 1;
    EXPECT_EQ(Sample(stream, {logits}, {greedy})[0].token_id, vocab_size - 1);
    logits[logits.size() / 2] = 1;
    EXPECT_EQ(Sample(stream, {logits}, {greedy})[0].token_id, vocab_size / 2);
  }
}

TEST(CudaSample, "agrees with a full sort in float64 for every mixture of filters") {
  TestStream stream;
  std::mt19937 random(1);
  for (const auto& [vocab_size, num_rows] : {std::pair{1, 50},
                                             {2, 200},
                                             {33, 400},
                                             {255, 200},
                                             {256, 200},
                                             {257, 200},
                                             {1000, 400},
                                             {32768, 150},
                                             {128256, 100}}) {
    const auto logits = RandomRows(random, static_cast<size_t>(num_rows), vocab_size);
    std::vector<SampleRow> rows;
    for (int row = 0; row < num_rows; ++row) rows.push_back(RandomFilters(random, vocab_size));
    EXPECT_TRUE(ExpectAgreement(stream, logits, rows) > num_rows * 2 / 3);
  }
}

TEST(CudaSample, "agrees with it after lists, biases and penalties, rows of all kinds side by side") {
  TestStream stream;
  std::mt19937 random(2);
  for (const auto& [vocab_size, num_rows] :
       {std::pair{1, 50}, {2, 200}, {33, 300}, {1000, 400}, {32768, 100}, {128256, 60}}) {
    const auto logits = RandomRows(random, static_cast<size_t>(num_rows), vocab_size);
    std::vector<SampleRow> rows;
    for (int row = 0; row < num_rows; ++row) {
      rows.push_back(RandomFilters(random, vocab_size));
      if (row % 4 != 0) AddRules(random, vocab_size, rows.back());
    }
    EXPECT_TRUE(ExpectAgreement(stream, logits, rows) > num_rows * 2 / 3);
  }
}

TEST(CudaSample, "saturates where lists and penalties overflow") {
  TestStream stream;
  SampleRow row;
  row.temperature = 0;
  row.repetition_penalty = 1e-30f;
  row.token_ids = {0, 1};
  const SampleResult up = Sample(stream, {{1e30f, 2e30f, 3, -kInfinity}}, {row})[0];
  EXPECT_EQ(up.failure, kSampled);
  EXPECT_EQ(up.token_id, 0);
  row.repetition_penalty = 1e30f;
  const SampleResult down = Sample(stream, {{-1e30f, -2e30f, -kInfinity, -kInfinity}}, {row})[0];
  EXPECT_EQ(down.failure, kSampled);
  EXPECT_EQ(down.token_id, 0);
}

TEST(CudaSample, "draws tokens as often as their probabilities say") {
  TestStream stream;
  const std::vector<float> logits = {0, 1, -1, 0.5f, 2, -2, 0.1f, 1.5f};
  SampleRow row;
  for (const float temperature : {0.7f, 1.0f, 3.0f}) {
    row.temperature = temperature;
    row.top_p = 1;
    // 99.9 % of fair generators stay below 24.3 with 7 degrees of freedom; the seeds are fixed.
    EXPECT_TRUE(ChiSquare(Histogram(stream, logits, row, 20000), Softmax(logits, temperature)) < 24.3);
    row.top_p = 0.9999f;  // keeps all of them, but goes another way
    EXPECT_TRUE(ChiSquare(Histogram(stream, logits, row, 20000), Softmax(logits, temperature)) < 24.3);
  }
}

TEST(CudaSample, "draws from a large vocabulary as often as probabilities say, with and without filters") {
  TestStream stream;
  constexpr int kSize = 3000;
  std::vector<float> logits = RandomFloats(kSize, 5);
  SampleRow row;
  // In 30 parts of 100 tokens: 99.9 % stay below 58.3 with 29 degrees of freedom.
  const auto in_parts = [&](auto list) {
    decltype(list) parts(30);
    for (size_t i = 0; i < list.size(); ++i) parts[i / 100] += list[i];
    return parts;
  };
  EXPECT_TRUE(ChiSquare(in_parts(Histogram(stream, logits, row, 10000)), in_parts(Softmax(logits))) < 58.3);
  row.top_k = 1000;
  std::vector<float> sorted = logits;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  std::vector<float> kept = logits;
  for (float& logit : kept) logit = logit < sorted[999] ? -kInfinity : logit;
  const std::vector<int> histogram = Histogram(stream, logits, row, 10000);
  for (size_t i = 0; i < kSize; ++i) EXPECT_TRUE(kept[i] != -kInfinity || histogram[i] == 0);
  EXPECT_TRUE(ChiSquare(in_parts(histogram), in_parts(Softmax(kept))) < 58.3);
}

TEST(CudaSample, "keeps with top-k what equals the k-th logit") {
  TestStream stream;
  SampleRow row;
  row.top_k = 2;
  EXPECT_TRUE((Support(stream, {0, 2, 2, 3, 1, 2}, row) == std::set<int>{1, 2, 3, 5}));
  row.top_k = 1;
  EXPECT_TRUE((Support(stream, {0, 2, 2, 3, 1, 2}, row) == std::set<int>{3}));
  EXPECT_TRUE((Support(stream, {0, 1e-9f}, row) == std::set<int>{1}));
}

TEST(CudaSample, "keeps with top-p the fewest tokens that reach the mass, the lower id among equals, at least one") {
  TestStream stream;
  const std::vector<float> flat(8, 1.0f);
  SampleRow row;
  for (const int top_k : {0, 7}) {  // which keeps all, as all are equal
    row.top_k = top_k;
    row.top_p = 0.5f;
    EXPECT_TRUE((Support(stream, flat, row) == std::set<int>{0, 1, 2, 3}));
    row.top_p = 0.51f;
    EXPECT_TRUE((Support(stream, flat, row) == std::set<int>{0, 1, 2, 3, 4}));
    row.top_p = 1e-20f;
    EXPECT_TRUE((Support(stream, flat, row) == std::set<int>{0}));
    EXPECT_TRUE((Support(stream, {0, 0, 0, 9, 0, 9, 0, 0}, row) == std::set<int>{3}));
  }
}

TEST(CudaSample, "measures top-p on what top-k and min-p left") {
  TestStream stream;
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.1f)};
  SampleRow row;
  row.top_p = 0.5f;
  EXPECT_TRUE((Support(stream, logits, row) == std::set<int>{0, 1}));
  row.top_k = 2;  // 0.4 / 0.7 > 0.5
  EXPECT_TRUE((Support(stream, logits, row) == std::set<int>{0}));
  row.top_k = 0;
  row.min_p = 0.6f;
  EXPECT_TRUE((Support(stream, logits, row) == std::set<int>{0}));
}

TEST(CudaSample, "keeps with min-p what is that fraction as likely as the likeliest, after temperature") {
  TestStream stream;
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.1f)};
  SampleRow row;
  row.min_p = 0.4f;
  EXPECT_TRUE((Support(stream, logits, row) == std::set<int>{0, 1, 2}));
  row.min_p = 1;
  EXPECT_TRUE((Support(stream, logits, row) == std::set<int>{0}));
  row.min_p = 0.4f;
  row.temperature = 2;
  EXPECT_TRUE((Support(stream, logits, row) == std::set<int>{0, 1, 2, 3}));
}

TEST(CudaSample, "works at the ends of the range of temperatures and logits") {
  TestStream stream;
  SampleRow row;
  row.temperature = std::numeric_limits<float>::denorm_min();
  EXPECT_TRUE((Support(stream, {1, 2, 3, 2.5f}, row) == std::set<int>{2}));
  EXPECT_TRUE((Support(stream, {-kLargest, kLargest, 0, -kInfinity}, row) == std::set<int>{1}));
  row.temperature = kLargest;
  EXPECT_TRUE((Support(stream, {1, 2, 3, 2.5f}, row) == std::set<int>{0, 1, 2, 3}));
  row.temperature = 1;
  EXPECT_EQ(Sample(stream, {{-5}}, {row})[0].token_id, 0);
}

TEST(CudaSample, "filters flat rows, where every token is as good as any other") {
  TestStream stream;
  constexpr int kSize = 128256;
  const std::vector<float> flat(kSize, 0.25f);
  std::vector<SampleRow> rows(24);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].seed = i;
    if (i % 3 == 0) rows[i].top_k = 50;  // keeps all
    if (i % 3 != 1) rows[i].top_p = 0.5f;
    if (i % 3 == 1) rows[i].min_p = 0.5f;
  }
  const std::vector<SampleResult> results = Sample(stream, {flat}, rows);
  for (size_t i = 0; i < rows.size(); ++i) {
    const int kept = rows[i].top_p < 1 ? kSize / 2 : kSize;
    EXPECT_EQ(results[i].token_id, static_cast<int>(UniformForToken(i, 0, 1) * kept));
  }
}

TEST(CudaSample, "never draws a banned token, not even from a flat distribution that ends in banned ones") {
  TestStream stream;
  std::vector<float> logits(1000, 0.0f);
  for (size_t i = 0; i < 1000; ++i) {
    if (i % 7 != 3 || i > 900) logits[i] = -kInfinity;
  }
  SampleRow row;
  row.temperature = 1e30f;
  for (const float top_p : {1.0f, 0.99f}) {
    row.top_p = top_p;
    const std::vector<int> histogram = Histogram(stream, logits, row, 2000);
    for (size_t i = 0; i < 1000; ++i) EXPECT_TRUE(histogram[i] == 0 || logits[i] == 0);
  }
}

TEST(CudaSample, "says why it samples nothing when logits are not numbers or no token is allowed") {
  TestStream stream;
  SampleRow row;
  row.num_logprobs = 2;
  SampleRow banned = row;
  banned.allowed_ids = {1, 2, 77};
  banned.banned_ids = {1, 2};
  const std::vector<float> numbers = {1, 2, 3, 4};
  for (const float temperature : {0.0f, 1.0f}) {
    row.temperature = banned.temperature = temperature;
    SampleRow given = row;
    given.given_token = 1;
    const std::vector<SampleResult> results = Sample(stream,
                                                     {{kNaN, 1, 2, 3},
                                                      {1, 2, 3, -kNaN},
                                                      {1, kInfinity, 3, 4},
                                                      {-kInfinity, -kInfinity, -kInfinity, -kInfinity},
                                                      {kNaN, kNaN, kNaN, kNaN},
                                                      {kNaN, -kInfinity, -kInfinity, -kInfinity},
                                                      {kNaN, 2, 3, 4},
                                                      {kNaN, 2, 3, 4},
                                                      numbers},
                                                     {row, row, row, row, row, row, given, banned, banned});
    for (size_t i = 0; i < results.size(); ++i) {
      EXPECT_EQ(results[i].failure, static_cast<int>(i < 8 ? kHeddleCudaInvalidLogits : kHeddleCudaNoTokenAllowed));
      EXPECT_EQ(results[i].token_id, 0);
      EXPECT_EQ(results[i].rank, 0);
    }
  }
}

TEST(CudaSample, "adds a sampled token to its history and nothing else") {
  TestStream stream;
  std::vector<SampleRow> rows(5);
  for (SampleRow& row : rows) {
    row.temperature = 0;
    row.token_ids = {3, 1, 2};
    row.repetition_penalty = 1.5f;
  }
  rows[1].given_token = 2;
  rows[2].banned_ids = {0, 1, 2, 3, 4};  // fails
  rows[3].has_history = false;
  const std::vector<float> logits = {1, 8, 5, 2, 6};
  const SampleBatch batch(stream, {logits}, rows);
  EXPECT_OK(Api().sample(stream.get(), &batch.op()));
  const std::vector<std::vector<int32_t>> histories = batch.Histories();
  EXPECT_TRUE((histories[0] == std::vector<int32_t>{3, 1, 2, 4}));  // 8 / 1.5 < 6
  EXPECT_TRUE((histories[1] == std::vector<int32_t>{3, 1, 2, -7}));
  EXPECT_TRUE((histories[2] == std::vector<int32_t>{3, 1, 2, -7}));
  EXPECT_TRUE((histories[4] == std::vector<int32_t>{3, 1, 2, 4}));
  EXPECT_EQ(batch.Results()[3].token_id, 1);  // no history, no penalty
}

TEST(CudaSample, "gives a row the same bits whatever is sampled beside it and however small the workspace is") {
  TestStream stream;
  TestStream small(1 << 20);  // 7 rows of this vocabulary
  std::mt19937 random(4);
  constexpr int kSize = 32768;
  const auto logits = RandomRows(random, 20, kSize);
  std::vector<SampleRow> rows;
  for (size_t i = 0; i < logits.size(); ++i) {
    rows.push_back(RandomFilters(random, kSize));
    rows.back().num_logprobs = static_cast<int>(i % 7) - 1;
    if (i % 2 == 0) AddRules(random, kSize, rows.back());
  }
  const std::vector<SampleResult> together = Sample(stream, logits, rows);
  EXPECT_TRUE(Sample(small, logits, rows) == together);
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_TRUE(Sample(stream, {logits[i]}, {rows[i]})[0] == together[i]);
  }
}

TEST(CudaSample, "may be captured, and reads its rows anew at every launch") {
  TestStream stream;
  std::mt19937 random(6);
  const auto logits = RandomRows(random, 3, 1000);
  std::vector<SampleRow> rows;
  for (int i = 0; i < 3; ++i) {
    rows.push_back(RandomFilters(random, 1000));
    rows.back().num_logprobs = 5;
  }
  std::vector<SampleRow> other_rows = rows;
  for (SampleRow& row : other_rows) row.temperature = 0;
  const SampleBatch batch(stream, logits, rows);
  const SampleBatch others(stream, logits, other_rows);
  HeddleCudaGraph* graph = nullptr;
  EXPECT_OK(Api().capture_begin(stream.get()));
  EXPECT_OK(Api().sample(stream.get(), &batch.op()));
  EXPECT_OK(Api().capture_end(stream.get(), &graph));
  EXPECT_OK(Api().graph_launch(stream.get(), graph));
  EXPECT_TRUE(batch.Results() == Sample(stream, logits, rows));
  EXPECT_OK(Api().copy(stream.get(), const_cast<HeddleCudaSampleRow*>(batch.op().rows), others.op().rows,
                       3 * sizeof(HeddleCudaSampleRow)));
  EXPECT_OK(Api().graph_launch(stream.get(), graph));
  const std::vector<SampleResult> results = batch.Results();
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(results[i].token_id, *ExpectedToken(logits[i], other_rows[i]));
    EXPECT_EQ(results[i].rank, 1);
  }
  EXPECT_OK(Api().graph_destroy(graph));
}

TEST(CudaSample, "takes no rows, and refuses what it cannot take") {
  TestStream stream;
  const SampleBatch batch(stream, {{1, 2, 3, 4}, {1, 2, 3, 4}}, {SampleRow{}, SampleRow{}});
  const auto refuses = [&](const auto& change) {
    HeddleCudaSample op = batch.op();
    change(op);
    EXPECT_STATUS(Api().sample(stream.get(), &op), kHeddleCudaInvalid);
  };
  refuses([](HeddleCudaSample& op) { op.logits.dtype = kHeddleCudaBFloat16; });
  refuses([](HeddleCudaSample& op) { op.logits.stride = 5; });
  refuses([](HeddleCudaSample& op) { op.logits.size = 0; });
  refuses([](HeddleCudaSample& op) { op.logits.stride = op.logits.size = (1 << 20) + 4; });
  refuses([](HeddleCudaSample& op) { op.rows = nullptr; });
  refuses([](HeddleCudaSample& op) { op.sampled = nullptr; });
  refuses([](HeddleCudaSample& op) { op.token_ids = nullptr; });
  refuses([](HeddleCudaSample& op) { op.best_ids = nullptr; });
  refuses([](HeddleCudaSample& op) { op.max_logprobs = HEDDLE_CUDA_MAX_LOGPROBS + 1; });
  HeddleCudaSample none = batch.op();
  none.logits.num_rows = 0;
  EXPECT_OK(Api().sample(stream.get(), &none));
  EXPECT_EQ(batch.Results().size(), size_t{2});
}

}  // namespace
}  // namespace heddle::test
