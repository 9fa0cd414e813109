#include "executor/thread_executor.h"

#include <chrono>
#include <thread>

#include "fake_cuda.h"
#include "test.h"

namespace heddle {
namespace {

constexpr int kHidden = 16;

// What rank 1 of the fake model does in its next step.
enum class Fault { kNone, kError, kBug, kHang };
std::atomic<Fault> fault;
std::atomic<bool> peer_gave_up;

// Sums a one over all ranks; the logits then favour the token whose number is the number of ranks.
class FakeModel : public CausalLM {
 public:
  explicit FakeModel(const TensorParallel& tp) : tp_(tp) {}

  void Forward(ForwardContext& context, const TensorView& hidden) const override {
    if (tp_.rank == 1) Misbehave(context);
    for (int64_t i = 0; i < hidden.shape.NumElements(); ++i) hidden.Data<float>()[i] = 1;
    if (tp_.size == 1) return;
    try {
      tp_.communicator->AllReduceSum(hidden);
    } catch (const Error&) {
      peer_gave_up = true;
      throw;
    }
  }
  void ComputeLogits(ForwardContext&, const TensorView& hidden, const TensorView& logits) const override {
    if (tp_.rank != 0) return;
    for (int64_t row = 0; row < logits.dim(0); ++row) {
      for (int64_t i = 0; i < logits.dim(1); ++i) logits.Row<float>(row)[i] = i == hidden.Row<float>(row)[0] ? 1 : 0;
    }
  }
  size_t weight_bytes() const override { return 0; }

 private:
  static void Misbehave(const ForwardContext& context) {
    switch (fault.load()) {
      case Fault::kNone:
        return;
      case Fault::kError:
        throw Error(ErrorCode::kInsufficientMemory, "no memory left");
      case Fault::kBug:
        throw std::runtime_error("a bug");
      case Fault::kHang:
        while (!context.cancelled && !peer_gave_up) std::this_thread::yield();
        // Long after whoever gave up has said so.
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        throw Error(ErrorCode::kCancelled, "woke up");
    }
  }

  const TensorParallel& tp_;
};

const ModelFamily kFamily{"Fake", nullptr,
                          [](const BuildContext& context, const ModelConfig&, int) -> std::unique_ptr<CausalLM> {
                            if (context.tp.rank == 1 && fault.load() == Fault::kError)
                              throw Error(ErrorCode::kModelFormat, "broken shard");
                            return std::make_unique<FakeModel>(context.tp);
                          },
                          [](const ModelConfig&, const TensorParallel&, const WeightFormats&, DeviceType) {
                            ModelFootprint footprint;
                            footprint.activation_bytes_per_token = kHidden * sizeof(float);
                            footprint.num_heads = footprint.num_kv_heads = 1;
                            return footprint;
                          }};

WorkerConfig Config() {
  WorkerConfig config;
  config.family = &kFamily;
  config.model.vocab_size = 32;
  config.model.hidden_size = kHidden;
  config.model.num_layers = 1;
  config.model.head_dim = 16;
  config.max_model_len = 64;
  config.num_blocks = 5;
  config.runner = {4, 64, 16, 64};
  return config;
}

WorkerConfig OnGpus(const std::vector<int32_t>& devices) {
  WorkerConfig config = Config();
  config.device = config.runner.device = DeviceType::kCuda;
  config.devices = devices;
  return config;
}

int64_t BytesTakenOfGpus() {
  int64_t bytes = 0;
  CheckCuda(CudaApi().allocated_bytes(nullptr, &bytes));
  return bytes;
}

SchedulerOutput OneSequence() {
  SchedulerOutput step;
  NewSequenceData& sequence = step.new_sequences.emplace_back();
  sequence.id = 1;
  sequence.token_ids = {3, 4, 5};
  sequence.prompt_len = 3;
  sequence.sampling_params.temperature = 0;
  sequence.sampling_params.max_tokens = 4;
  sequence.block_ids = {1};
  step.scheduled.push_back({1, 3, true});
  step.total_num_scheduled_tokens = 3;
  return step;
}

std::atomic<bool> cancelled{false};

std::unique_ptr<Executor> Create(const WorkerConfig& config, int size, int64_t timeout_ms = 60'000) {
  const auto weights = DummyWeights(DType::kFloat32);
  return CreateThreadExecutor(
      config, size, timeout_ms, *weights, [](double) {}, cancelled);
}

std::unique_ptr<Executor> Create(int size, int64_t timeout_ms = 60'000) { return Create(Config(), size, timeout_ms); }

ModelOutput Execute(Executor& executor, const SchedulerOutput& step) {
  executor.Submit(step);
  return executor.Wait();
}

TEST(ThreadExecutor, "runs a step on every rank and answers with rank 0's output") {
  fault = Fault::kNone;
  for (const int size : {1, 2, 4, 8}) {
    const auto executor = Create(size);
    const ModelOutput output = Execute(*executor, OneSequence());
    EXPECT_EQ(output.sequences.size(), 1u);
    EXPECT_EQ(output.sequences[0].token_id, size);
    EXPECT_EQ(executor->Stats().size(), static_cast<size_t>(size));
  }
}

TEST(ThreadExecutor, "tells the time in ops from that in collectives, both of the time in steps") {
  fault = Fault::kNone;
  const auto executor = Create(2);
  Execute(*executor, OneSequence());
  const std::vector<RankStats> ranks = executor->Stats();
  for (const RankStats& rank : ranks) {
    EXPECT_TRUE(rank.communication_seconds > 0);
    EXPECT_TRUE(rank.ops_seconds + rank.communication_seconds <= rank.busy_seconds);
  }
  // The fake model has no ops; rank 0 samples with some.
  EXPECT_TRUE(ranks[0].ops_seconds > 0);
  EXPECT_EQ(ranks[1].ops_seconds, 0);
}

TEST(ThreadExecutor, "names the rank that had a bug, and refuses every later step with the same failure") {
  fault = Fault::kNone;
  const auto executor = Create(4);
  fault = Fault::kBug;
  for (int i = 0; i < 2; ++i) {
    try {
      Execute(*executor, OneSequence());
      EXPECT_TRUE(false);
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::kRankFailed);
      EXPECT_EQ(std::string(error.what()), "rank 1 failed: a bug");
    }
    fault = Fault::kNone;
  }
}

TEST(ThreadExecutor, "refuses a step beyond the longest sequence") {
  fault = Fault::kNone;
  const auto executor = Create(2);
  SchedulerOutput step = OneSequence();
  step.new_sequences[0].token_ids.resize(65);
  step.new_sequences[0].block_ids = {1, 2, 3, 4, 0};
  step.new_sequences[0].num_computed_tokens = 62;
  EXPECT_ERROR(ErrorCode::kRankFailed, Execute(*executor, step));
}

TEST(ThreadExecutor, "keeps the code of a failure that is not a bug") {
  fault = Fault::kNone;
  const auto executor = Create(2);
  fault = Fault::kError;
  EXPECT_ERROR(ErrorCode::kInsufficientMemory, Execute(*executor, OneSequence()));
}

TEST(ThreadExecutor, "fails with a time-out when a rank keeps its peers waiting") {
  fault = Fault::kNone;
  const auto executor = Create(2, 50);
  fault = Fault::kHang;
  peer_gave_up = false;
  EXPECT_ERROR(ErrorCode::kCommTimeout, Execute(*executor, OneSequence()));
}

TEST(ThreadExecutor, "abandons the step under way when it is cancelled") {
  fault = Fault::kNone;
  const auto executor = Create(2);
  fault = Fault::kHang;
  peer_gave_up = false;
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    cancelled = true;
    executor->Cancel();
  });
  EXPECT_ERROR(ErrorCode::kCancelled, Execute(*executor, OneSequence()));
  canceller.join();
  cancelled = false;
}

TEST(ThreadExecutor, "names the rank whose GPU is lost while rank 0 waits for its own, or no longer has to") {
  test::FakeCuda& fake = test::TheFakeCuda();
  fault = Fault::kNone;
  for (const test::FakeState state : {test::FakeState::kStalled, test::FakeState::kRunning}) {
    const auto executor = Create(OnGpus({0, 1}), 2);
    EXPECT_EQ(Execute(*executor, OneSequence()).sequences[0].token_id, 1);
    fake.devices[0].state = state;
    executor->Submit(OneSequence());
    fake.devices[1].state = test::FakeState::kLost;
    try {
      executor->Wait();
      EXPECT_TRUE(false);
    } catch (const Error& error) {
      EXPECT_TRUE(error.code() == ErrorCode::kRankFailed);
      EXPECT_EQ(std::string(error.what()), "rank 1 failed: device 1 is lost");
    }
    for (test::FakeDevice& device : fake.devices) device.state = test::FakeState::kRunning;
  }
}

TEST(ThreadExecutor, "leaves a GPU that does not end its work what all ranks share with it, without waiting for it") {
  test::FakeCuda& fake = test::TheFakeCuda();
  fault = Fault::kNone;
  const int64_t groups_before = fake.num_peer_groups;
  const int64_t communicators_before = fake.num_communicators;
  for (const bool hangs : {false, true}) {
    WorkerConfig config = OnGpus({0, 1});
    config.timeout = std::chrono::milliseconds(30);
    auto executor = Create(config, 2);
    EXPECT_EQ(fake.num_peer_groups - groups_before, 1);
    EXPECT_EQ(fake.num_communicators - communicators_before, 2);
    if (hangs) fake.devices[0].state = test::FakeState::kStalled;
    executor.reset();
    // The other GPU's rank had a communicator of its own.
    EXPECT_EQ(fake.num_peer_groups - groups_before, hangs ? 1 : 0);
    EXPECT_EQ(fake.num_communicators - communicators_before, hangs ? 1 : 0);
    fake.devices[0].state = test::FakeState::kRunning;
  }
}

TEST(ThreadExecutor,
     "takes of a GPU what was planned, histories and lists of log-probabilities once they are asked for") {
  test::TheFakeCuda();
  fault = Fault::kNone;
  const WorkerConfig config = OnGpus({0});
  const ModelRunner::Options& runner = config.runner;
  const int64_t planned =
      ModelRunner::ActivationBytes(config.model, runner, {0, 1, nullptr},
                                   ActivationDType(config.device, config.formats.dtype()), kHidden * sizeof(float)) +
      config.num_blocks * KVCache::BytesPerBlock(config.kv_cache_dtype, config.model.num_layers, runner.block_size, 1,
                                                 config.model.head_dim) -
      DecodeGraphs::DeviceBytes(config.model.num_layers);
  const int64_t histories = int64_t{runner.max_num_seqs} * runner.max_model_len * 4;
  const int64_t lists = int64_t{runner.max_num_seqs} * config.model.vocab_size * 8;
  const int64_t before = BytesTakenOfGpus();
  const auto executor = Create(config, 1);
  SchedulerOutput step = OneSequence();
  Execute(*executor, step);
  EXPECT_EQ(BytesTakenOfGpus() - before, planned - histories - lists);
  step.finished = {1};
  step.new_sequences[0].sampling_params.frequency_penalty = 1;
  step.new_sequences[0].sampling_params.logprobs = 2;
  Execute(*executor, step);
  EXPECT_EQ(BytesTakenOfGpus() - before, planned);
}

TEST(ThreadExecutor, "fails to load as the rank that failed, and leaves nothing behind") {
  fault = Fault::kError;
  EXPECT_ERROR(ErrorCode::kModelFormat, Create(4));
  fault = Fault::kNone;
}

}  // namespace
}  // namespace heddle
