#include "sampler/device_sampler.h"

#include "fake_cuda.h"
#include "sampler_testing.h"

namespace heddle {
namespace {

using std::chrono::milliseconds;
using Row = DeviceSampler::Row;

constexpr int kVocabSize = 1000;
constexpr int kMaxRows = 8;
constexpr int kMaxModelLen = 512;
constexpr DeviceSampler::Limits kLimits{.max_rows = kMaxRows, .max_model_len = kMaxModelLen, .vocab_size = kVocabSize};

class Fixture {
 public:
  explicit Fixture(WaitLimits limits = {})
      : cuda_(0, int64_t{64} << 20, std::move(limits)),
        logits_(DType::kFloat32, {kMaxRows, kVocabSize}, cuda_),
        token_ids_(DType::kInt32, {kMaxRows}, cuda_),
        allocated_before_(AllocatedBytes()),
        sampler_(cuda_, kLimits, token_ids_.view().Data<int32_t>()) {}

  size_t Launch(const std::vector<std::vector<float>>& logits, const std::vector<Row>& rows) {
    for (size_t i = 0; i < logits.size(); ++i) {
      cuda_.Copy(logits_.view().Row<float>(static_cast<int64_t>(i)), logits[i].data(),
                 logits[i].size() * sizeof(float));
    }
    cuda_.Synchronize();
    return Launch(rows);
  }
  // On the logits that are there.
  size_t Launch(const std::vector<Row>& rows) {
    return sampler_.Launch(logits_.view().Rows(0, std::ssize(rows)), rows);
  }
  // On the logits that are there, in parts.
  size_t LaunchPlain(const std::vector<Row>& rows, size_t num_rows) {
    sampler_.Upload(rows, num_rows);
    sampler_.SamplePlain(logits_.view().Rows(0, static_cast<int64_t>(num_rows)));
    return sampler_.Fetch();
  }
  CudaGraph CapturePlain(size_t num_rows) {
    return cuda_.Capture([&] { sampler_.SamplePlain(logits_.view().Rows(0, static_cast<int64_t>(num_rows))); });
  }
  size_t Replay(const CudaGraph& graph, const std::vector<Row>& rows) {
    sampler_.Upload(rows, rows.size());
    cuda_.Launch(graph);
    return sampler_.Fetch();
  }
  SequenceOutput Take(size_t launch, size_t row) {
    cuda_.Synchronize();
    SequenceOutput out;
    sampler_.Take(launch, row, out);
    return out;
  }
  // What the last launch leaves to the next step.
  std::vector<int32_t> TokenIds(size_t count) {
    std::vector<int32_t> ids(count);
    cuda_.Copy(ids.data(), token_ids_.view().data, count * sizeof(int32_t));
    cuda_.Synchronize();
    return ids;
  }
  int64_t BytesTaken() const { return AllocatedBytes() - allocated_before_; }

 private:
  int64_t AllocatedBytes() const {
    int64_t bytes = 0;
    CheckCuda(CudaApi().allocated_bytes(cuda_.get(), &bytes));
    return bytes;
  }

  CudaStream cuda_;
  Tensor logits_;
  Tensor token_ids_;
  int64_t allocated_before_;
  DeviceSampler sampler_;
};

Row RowOf(const SamplingParams& params, const std::vector<int32_t>& token_ids, int prompt_len = 1) {
  return {.input = {.params = &params, .token_ids = token_ids, .prompt_len = prompt_len, .eos_token_ids = {}}};
}

std::vector<float> LogitsWithBest(int token) {
  std::vector<float> logits(kVocabSize, 0);
  logits[static_cast<size_t>(token)] = 9;
  return logits;
}

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

TEST(DeviceSampler, "gives each row its token, and leaves them all to the next step") {
  test::RequireDevice();
  Fixture fixture;
  const SamplingParams params = Greedy();
  const std::vector<int32_t> history = {1, 2, 3};
  const Row row = RowOf(params, history);
  const size_t launch = fixture.Launch({LogitsWithBest(7), LogitsWithBest(999), LogitsWithBest(0)}, {row, row, row});
  EXPECT_TRUE((fixture.TokenIds(3) == std::vector<int32_t>{7, 999, 0}));
  EXPECT_EQ(fixture.Take(launch, 0).token_id, 7);
  EXPECT_EQ(fixture.Take(launch, 1).token_id, 999);
  const SequenceOutput last = fixture.Take(launch, 2);
  EXPECT_TRUE(last.sampled && last.token_id == 0 && last.failure == SequenceFailure::kNone);
}

TEST(DeviceSampler, "gives plain rows the same in parts, beside rows that nobody takes") {
  test::RequireDevice();
  Fixture fixture;
  const SamplingParams params = Greedy();
  const std::vector<int32_t> history = {1, 2, 3};
  const std::vector<Row> rows(3, RowOf(params, history));
  fixture.Launch({LogitsWithBest(7), LogitsWithBest(999), LogitsWithBest(0), LogitsWithBest(5)},
                 std::vector(4, rows[0]));
  const size_t launch = fixture.LaunchPlain(rows, 4);
  EXPECT_EQ(fixture.Take(launch, 0).token_id, 7);
  EXPECT_EQ(fixture.Take(launch, 1).token_id, 999);
  EXPECT_EQ(fixture.Take(launch, 2).token_id, 0);
  EXPECT_TRUE((fixture.TokenIds(3) == std::vector<int32_t>{7, 999, 0}));
}

TEST(DeviceSampler, "samples by the rows of each replay, not by those it was captured with") {
  test::RequireDevice();
  Fixture fixture;
  const std::vector<int32_t> history = {1, 2, 3};
  std::vector<SamplingParams> params(3);
  const auto reseed = [&](uint64_t seed) {
    for (SamplingParams& one : params) one.seed = seed++;
  };
  const auto rows_of = [&] {
    return std::vector<Row>{RowOf(params[0], history), RowOf(params[1], history), RowOf(params[2], history)};
  };
  const auto tokens_of = [&](size_t launch) {
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < params.size(); ++i) tokens.push_back(fixture.Take(launch, i).token_id);
    return tokens;
  };
  reseed(100);
  const std::vector<float> flat(kVocabSize, 0);
  const std::vector<int32_t> first = tokens_of(fixture.Launch({flat, flat, flat}, rows_of()));
  const CudaGraph graph = fixture.CapturePlain(params.size());
  EXPECT_TRUE(tokens_of(fixture.Replay(graph, rows_of())) == first);
  reseed(200);
  const std::vector<int32_t> second = tokens_of(fixture.Replay(graph, rows_of()));
  EXPECT_TRUE(second != first);
  EXPECT_TRUE(second == fixture.TokenIds(params.size()));
  EXPECT_TRUE(second == tokens_of(fixture.Launch(rows_of())));
}

TEST(DeviceSampler, "leaves alone the rows that the device has yet to copy for the launch before") {
  test::TheFakeCuda().is_late = true;
  Fixture fixture;
  const std::vector<int32_t> history = {1};
  std::vector<size_t> launches;
  for (const uint64_t seed : {100, 200}) {
    SamplingParams params;
    params.seed = seed;
    launches.push_back(fixture.Launch({RowOf(params, history)}));
  }
  EXPECT_EQ(fixture.Take(launches[0], 0).token_id, 100);
  EXPECT_EQ(fixture.Take(launches[1], 0).token_id, 200);
  test::TheFakeCuda();
}

TEST(DeviceSampler, "calls rows plain that have no lists, no penalties, and ask for no log-probabilities") {
  SamplingParams params;
  params.top_k = 5;
  params.top_p = 0.5f;
  const std::vector<int32_t> history = {1};
  Row row = RowOf(params, history);
  EXPECT_TRUE(DeviceSampler::IsPlain(row));
  row.num_logprobs = 0;
  EXPECT_TRUE(!DeviceSampler::IsPlain(row));
  row = RowOf(params, history);
  row.given_token = 3;
  EXPECT_TRUE(!DeviceSampler::IsPlain(row));
  params.frequency_penalty = 1;
  EXPECT_TRUE(!DeviceSampler::IsPlain(RowOf(params, history)));

  test::RequireDevice();
  Fixture fixture;
  EXPECT_ERROR(ErrorCode::kInternal, fixture.LaunchPlain({RowOf(params, history)}, 1));
}

TEST(DeviceSampler, "keeps what its last two launches gave, and says when a launch is asked for that is lost") {
  test::RequireDevice();
  Fixture fixture;
  const SamplingParams params = Greedy();
  const std::vector<int32_t> history = {1};
  std::vector<size_t> launches;
  for (const int token : {10, 11, 12}) {
    launches.push_back(fixture.Launch({LogitsWithBest(token)}, {RowOf(params, history)}));
  }
  EXPECT_EQ(fixture.Take(launches[2], 0).token_id, 12);
  EXPECT_EQ(fixture.Take(launches[1], 0).token_id, 11);
  EXPECT_ERROR(ErrorCode::kInternal, fixture.Take(launches[0], 0));
}

TEST(DeviceSampler, "takes no more device memory than it says, whatever histories and log-probabilities") {
  test::RequireDevice();
  Fixture fixture;
  SamplingParams params = Greedy();
  params.repetition_penalty = 1.5f;
  const std::vector<float> logits = LogitsWithBest(5);
  for (const int length : {1, 100, 300, kMaxModelLen - 1}) {
    const std::vector<int32_t> history(static_cast<size_t>(length), 5);
    for (const int num_logprobs : {0, 3, HEDDLE_CUDA_MAX_LOGPROBS}) {
      Row row = RowOf(params, history);
      row.num_logprobs = num_logprobs;
      fixture.Launch(std::vector(kMaxRows, logits), std::vector(kMaxRows, row));
      EXPECT_TRUE(fixture.BytesTaken() <= DeviceSampler::DeviceBytes(kLimits));
    }
  }
}

TEST(DeviceSampler, "takes lists of any length") {
  test::RequireDevice();
  Fixture fixture;
  SamplingParams params = Greedy();
  const std::vector<int32_t> history = {1};
  for (const int length : {1, 10, kVocabSize}) {
    params.allowed_token_ids.clear();
    for (int id = 0; id < length; ++id) params.allowed_token_ids.push_back(id);
    const size_t launch =
        fixture.Launch(std::vector(kMaxRows, LogitsWithBest(0)), std::vector(kMaxRows, RowOf(params, history)));
    EXPECT_EQ(fixture.Take(launch, kMaxRows - 1).token_id, 0);
  }
}

TEST(DeviceSampler, "waits before it page-locks more, but not for ever") {
  test::FakeCuda& fake = test::TheFakeCuda();
  Fixture fixture({.timeout = milliseconds(30)});
  SamplingParams params = Greedy();
  params.frequency_penalty = 1;
  const std::vector<int32_t> history(kMaxModelLen - 1, 5);
  const std::vector<Row> rows(kMaxRows, RowOf(params, history));
  fake.devices[0].state = test::FakeState::kStalled;
  EXPECT_ERROR(ErrorCode::kCommTimeout, fixture.Launch(rows));
  fake.devices[0].state = test::FakeState::kRunning;
  fixture.Launch(rows);
}

TEST(DeviceSampler, "chooses as the sampler of the CPU does, by every rule") {
  test::RequireGpu();
  Fixture fixture;
  SamplerFixture cpu(kVocabSize);
  std::mt19937 random(3);
  std::vector<SamplingParams> rules(kMaxRows);
  rules[0].temperature = 0;
  rules[1].top_k = 20;
  rules[2].top_p = 0.8f;
  rules[3].min_p = 0.05f;
  rules[4].repetition_penalty = 1.7f;
  rules[4].presence_penalty = 0.4f;
  rules[5].frequency_penalty = 0.8f;
  rules[6].allowed_token_ids = {3, 14, 15, 92, 65, 358};
  rules[7].logit_bias = {{4, 6.5f}, {400, -3}};
  rules[7].bad_words = {{9}};
  int num_different = 0;
  for (int step = 0; step < 50; ++step) {
    std::vector<int32_t> history(1 + static_cast<size_t>(step));
    for (int32_t& token : history) token = static_cast<int32_t>(random() % kVocabSize);
    std::vector<std::vector<float>> logits;
    std::vector<Row> rows;
    for (SamplingParams& params : rules) {
      params.seed = random();
      logits.push_back(RandomLogits(random, kVocabSize, 3));
      rows.push_back(RowOf(params, history));
    }
    const size_t launch = fixture.Launch(logits, rows);
    for (size_t i = 0; i < rules.size(); ++i) {
      const SequenceOutput actual = fixture.Take(launch, i);
      const SequenceOutput expected = cpu.Sample(logits[i], rules[i], history);
      num_different += actual.token_id != expected.token_id ? 1 : 0;
      if (actual.token_id == expected.token_id) EXPECT_NEAR(actual.logprob, expected.logprob, 1e-4);
    }
  }
  EXPECT_TRUE(num_different <= 1);  // where rounding in a sum decides
}

}  // namespace
}  // namespace heddle
