// What a step of the engine emits, and when it pauses.
#include "engine/engine_core.h"

#include <map>
#include <numeric>

#include "test.h"

namespace heddle {
namespace {

SchedulerConfig Config() {
  SchedulerConfig config;
  config.max_num_seqs = 4;
  config.max_num_batched_tokens = 64;
  config.max_num_waiting = 8;
  config.max_model_len = 4096;
  config.num_blocks = 1025;
  config.block_size = 16;
  return config;
}

// A model that answers at once: token 1 for everybody, unless told to fail.
class FakeExecutor : public Executor {
 public:
  explicit FakeExecutor(const bool& fails) : fails_(fails) {}

  ModelOutput Execute(const SchedulerOutput& step) override {
    if (fails_) throw Error(ErrorCode::kRankFailed, "rank 1 failed: on purpose");
    ModelOutput output;
    for (const ScheduledSequence& scheduled : step.scheduled) {
      SequenceOutput& sequence = output.sequences.emplace_back();
      sequence.id = scheduled.id;
      sequence.sampled = scheduled.samples;
      sequence.token_id = 1;
      sequence.logprob = -0.5f;
    }
    return output;
  }
  void Cancel() override {}
  std::vector<RankStats> Stats() const override { return {}; }

 private:
  const bool& fails_;
};

struct Driver {
  bool fails = false;
  EngineCore core{Config(), std::make_unique<FakeExecutor>(fails), nullptr};
  std::map<RequestId, std::vector<SequenceDelta>> deltas;

  void Add(RequestId id, int prompt_len, int max_tokens) {
    Request request;
    request.id = id;
    request.prompt_token_ids.resize(static_cast<size_t>(prompt_len));
    std::iota(request.prompt_token_ids.begin(), request.prompt_token_ids.end(), static_cast<int32_t>(id) * 1000);
    request.sampling_params.max_tokens = max_tokens;
    EngineOutput output;
    core.AddRequest(std::move(request), output);
    Keep(output);
  }
  void Keep(EngineOutput& output) {
    for (SequenceDelta& delta : output.deltas) deltas[delta.request_id].push_back(std::move(delta));
  }
  bool Step() {
    EngineOutput output;
    const bool progressed = core.Step(output);
    Keep(output);
    return progressed;
  }
  void Abort(RequestId id) {
    EngineOutput output;
    core.AbortRequest(id, output);
    Keep(output);
  }
  int NumTokens(RequestId id) const {
    size_t count = 0;
    const auto it = deltas.find(id);
    if (it == deltas.end()) return 0;
    for (const SequenceDelta& delta : it->second) count += delta.token_ids.size();
    return static_cast<int>(count);
  }
};

TEST(EngineCore, "emits each token in the step that samples it, and the reason with the last") {
  Driver driver;
  driver.Add(1, 10, 3);
  for (int tokens = 1; tokens <= 3; ++tokens) {
    EXPECT_TRUE(driver.Step());
    EXPECT_EQ(driver.NumTokens(1), tokens);
  }
  EXPECT_TRUE(driver.deltas[1].back().finish_reason == FinishReason::kLength);
  EXPECT_TRUE(!driver.core.HasRequests());
  EXPECT_TRUE(!driver.Step());
  EXPECT_EQ(driver.core.num_steps(), 3);
  EXPECT_EQ(driver.core.num_generated_tokens(), 3);
}

TEST(EngineCore, "ends an aborted request at once, in the middle of a long prompt too, and gives its blocks back") {
  Driver driver;
  driver.Add(1, 1000, 5);
  driver.Step();
  driver.Abort(1);
  EXPECT_TRUE(driver.deltas[1].back().finish_reason == FinishReason::kAbort);
  EXPECT_EQ(driver.NumTokens(1), 0);
  EXPECT_TRUE(!driver.core.HasRequests());
  const SchedulerStats stats = driver.core.scheduler_stats();
  EXPECT_EQ(stats.num_free_blocks, stats.num_total_blocks);
}

TEST(EngineCore, "counts a request as waiting until a step works on it or it is aborted") {
  Driver driver;
  for (RequestId id = 1; id <= 6; ++id) driver.Add(id, 4, 50);
  EXPECT_EQ(driver.core.num_waiting_requests(), 6);
  driver.Step();
  EXPECT_EQ(driver.core.num_waiting_requests(), 2);
  driver.Abort(6);
  EXPECT_EQ(driver.core.num_waiting_requests(), 1);
  driver.Abort(1);
  EXPECT_EQ(driver.core.num_waiting_requests(), 1);
}

TEST(EngineCore, "pauses a request whose tokens nobody takes, alone, and resumes it when half are taken") {
  Driver driver;
  driver.Add(1, 4, 3000);
  for (int i = 0; i < 1025; ++i) driver.Step();
  EXPECT_EQ(driver.NumTokens(1), 1025);
  EXPECT_TRUE(!driver.Step());  // nothing else to do
  driver.Add(2, 4, 10);
  for (int i = 0; i < 10; ++i) driver.Step();
  EXPECT_EQ(driver.NumTokens(2), 10);
  EXPECT_EQ(driver.NumTokens(1), 1025);
  driver.core.Acknowledge(1, 512);
  EXPECT_TRUE(!driver.Step());
  driver.core.Acknowledge(1, 1);
  EXPECT_TRUE(driver.Step());
  EXPECT_EQ(driver.NumTokens(1), 1026);
}

TEST(EngineCore, "passes the failure of a rank on") {
  Driver driver;
  driver.Add(1, 4, 10);
  driver.Step();
  driver.fails = true;
  EXPECT_ERROR(ErrorCode::kRankFailed, driver.Step());
}

}  // namespace
}  // namespace heddle
