// What a step of the engine emits and counts, when it pauses, and what it makes of a request's failures.
#include "engine/engine_core.h"

#include <deque>
#include <functional>
#include <map>
#include <numeric>

#include "scheduler_testing.h"
#include "test.h"

namespace heddle {
namespace {

using test::MakeRequest;
using test::RoomyConfig;

// Ranks that give every sequence token 1, or what a test edits it to.
class FakeExecutor : public Executor {
 public:
  using Edit = std::function<void(SequenceOutput&, int step)>;
  FakeExecutor(Edit edit, int max_steps_under_way)
      : edit_(std::move(edit)), max_steps_under_way_(max_steps_under_way) {}

  int max_steps_under_way() const override { return max_steps_under_way_; }
  void Submit(const SchedulerOutput& step) override {
    EXPECT_TRUE(static_cast<int>(outputs_.size()) < max_steps_under_way_);
    ModelOutput& output = outputs_.emplace_back();
    for (const ScheduledSequence& scheduled : step.scheduled) {
      SequenceOutput& sequence = output.sequences.emplace_back();
      sequence.id = scheduled.id;
      sequence.sampled = scheduled.samples;
      sequence.token_id = 1;
      if (edit_) edit_(sequence, num_steps_);
    }
    ++num_steps_;
  }
  ModelOutput Wait() override {
    ModelOutput output = std::move(outputs_.front());
    outputs_.pop_front();
    return output;
  }
  void Cancel() override {}
  std::vector<RankStats> Stats() const override { return {}; }

 private:
  const Edit edit_;
  const int max_steps_under_way_;
  std::deque<ModelOutput> outputs_;
  int num_steps_ = 0;
};

struct Ending {
  FinishReason reason = FinishReason::kNone;
  std::optional<EngineFailure> error;
  int num_tokens = 0;
};

class Driver {
 public:
  explicit Driver(FakeExecutor::Edit edit = nullptr, const SchedulerConfig& config = RoomyConfig(),
                  int max_steps_under_way = 1)
      : core(config, std::make_unique<FakeExecutor>(std::move(edit), max_steps_under_way),
             std::make_shared<Vocabulary>("ab", std::vector<uint32_t>{0, 1, 2}, std::vector<uint8_t>{0, 0})) {}

  // Adds, then steps until nothing is left.
  void Run(std::vector<Request> requests) {
    for (Request& request : requests) core.AddRequest(std::move(request), output);
    while (core.HasWork() && core.Step(output)) continue;
  }

  // Of each sequence, by request and index.
  std::map<std::pair<RequestId, int>, Ending> Endings() const {
    std::map<std::pair<RequestId, int>, Ending> endings;
    for (const SequenceDelta& delta : output.deltas) {
      Ending& ending = endings[{delta.request_id, delta.index}];
      EXPECT_TRUE(ending.reason == FinishReason::kNone);
      ending.reason = delta.finish_reason;
      if (delta.end != nullptr) ending.error = delta.end->error;
      ending.num_tokens += delta.num_tokens;
    }
    return endings;
  }

  EngineCore core;
  EngineOutput output;
};

Request Forked(RequestId id, int n) {
  Request request = MakeRequest(id, 5, 4);
  request.sampling_params.n = n;
  return request;
}

void ExpectFailed(const Ending& ending, ErrorCode code) {
  EXPECT_TRUE(ending.reason == FinishReason::kError);
  EXPECT_TRUE(ending.error && ending.error->code == code);
}

void ExpectWhole(const Ending& ending) {
  EXPECT_TRUE(ending.reason == FinishReason::kLength);
  EXPECT_EQ(ending.num_tokens, 4);
}

void ExpectNothingLeft(const EngineCore& core) {
  const SchedulerStats stats = core.scheduler_stats();
  EXPECT_TRUE(!core.HasWork());
  EXPECT_EQ(core.num_waiting_requests(), 0);
  EXPECT_EQ(stats.num_running + stats.num_waiting, 0);
  EXPECT_EQ(stats.num_free_blocks, stats.num_total_blocks);
}

TEST(EngineCore, "ends a request that cannot be taken on, each of its sequences, and goes on with the others") {
  Driver driver;
  Request broken = Forked(1, 2);
  broken.sampling_params.stop = {"\xff"};
  driver.Run({broken, Forked(2, 2)});
  const auto endings = driver.Endings();
  EXPECT_EQ(endings.size(), 4u);
  for (int index = 0; index < 2; ++index) {
    ExpectFailed(endings.at({1, index}), ErrorCode::kRequestFailed);
    ExpectWhole(endings.at({2, index}));
  }
  ExpectNothingLeft(driver.core);
}

TEST(EngineCore, "ends a request that the queue has no room for, as such") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_waiting = 1;
  Driver driver(nullptr, config);
  driver.Run({Forked(1, 1), Forked(2, 1)});
  ExpectWhole(driver.Endings().at({1, 0}));
  ExpectFailed(driver.Endings().at({2, 0}), ErrorCode::kQueueFull);
  ExpectNothingLeft(driver.core);
}

TEST(EngineCore, "ends all sequences of a request whose output cannot be made, and goes on with the others") {
  // Rows of two widths cannot be joined: what the ranks never give.
  Driver driver([](SequenceOutput& sequence, int step) {
    AppendLogprobs(sequence.logprobs,
                   {.k = sequence.id == 1 ? step : 0, .token_ids = {1}, .logprobs = {0}, .ranks = {1}});
  });
  Request broken = Forked(1, 3);
  broken.sampling_params.stream_interval = 4;
  driver.Run({broken, Forked(2, 1)});
  const auto endings = driver.Endings();
  EXPECT_EQ(endings.size(), 4u);
  for (int index = 0; index < 3; ++index) ExpectFailed(endings.at({1, index}), ErrorCode::kRequestFailed);
  ExpectWhole(endings.at({2, 0}));
  ExpectNothingLeft(driver.core);
}

TEST(EngineCore, "tells logits that are not numbers from rules that allow no token") {
  for (const auto& [failure, code] : {std::pair(SequenceFailure::kInvalidLogits, ErrorCode::kRequestFailed),
                                      std::pair(SequenceFailure::kNoTokenAllowed, ErrorCode::kInvalidArgument)}) {
    Driver driver([failure = failure](SequenceOutput& sequence, int) {
      if (sequence.id != 1) return;
      sequence.failure = failure;
      sequence.sampled = false;
    });
    driver.Run({Forked(1, 1), Forked(2, 1)});
    ExpectFailed(driver.Endings().at({1, 0}), code);
    ExpectWhole(driver.Endings().at({2, 0}));
    ExpectNothingLeft(driver.core);
  }
}

TEST(EngineCore, "counts a prompt once, with the request's first token") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_batched_tokens = 4;
  Driver driver(nullptr, config);
  driver.core.AddRequest(Forked(1, 2), driver.output);
  driver.core.Step(driver.output);
  EXPECT_EQ(driver.core.num_prompt_tokens(), 0);
  driver.Run({});
  EXPECT_EQ(driver.core.num_prompt_tokens(), 5);
  EXPECT_EQ(driver.core.num_generated_tokens(), 8);

  driver.core.AddRequest(MakeRequest(2, 5, 4), driver.output);
  driver.core.Step(driver.output);
  driver.core.AbortRequest(2, driver.output);
  EXPECT_EQ(driver.core.num_prompt_tokens(), 5);
  EXPECT_TRUE(driver.Endings().at({2, 0}).reason == FinishReason::kAbort);
  ExpectNothingLeft(driver.core);
}

int NumTokens(const Driver& driver, RequestId id) {
  const auto endings = driver.Endings();
  const auto it = endings.find({id, 0});
  return it == endings.end() ? 0 : it->second.num_tokens;
}

TEST(EngineCore, "emits each token in the step that samples it, and the reason with the last") {
  Driver driver;
  driver.core.AddRequest(MakeRequest(1, 10, 3), driver.output);
  for (int tokens = 1; tokens <= 3; ++tokens) {
    EXPECT_TRUE(driver.core.Step(driver.output));
    EXPECT_EQ(NumTokens(driver, 1), tokens);
  }
  EXPECT_TRUE(driver.Endings().at({1, 0}).reason == FinishReason::kLength);
  EXPECT_TRUE(!driver.core.Step(driver.output));
  EXPECT_EQ(driver.core.num_steps(), 3);
  EXPECT_EQ(driver.output.step_seconds.size(), 3u);
  const double seconds = std::accumulate(driver.output.step_seconds.begin(), driver.output.step_seconds.end(), 0.0);
  EXPECT_EQ(driver.core.step_seconds(), seconds);
  ExpectNothingLeft(driver.core);
}

TEST(EngineCore, "ends an aborted request at once, in the middle of a long prompt too") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_batched_tokens = 16;
  Driver driver(nullptr, config);
  driver.core.AddRequest(MakeRequest(1, 60, 4), driver.output);
  driver.core.Step(driver.output);
  driver.core.AbortRequest(1, driver.output);
  EXPECT_TRUE(driver.Endings().at({1, 0}).reason == FinishReason::kAbort);
  EXPECT_EQ(NumTokens(driver, 1), 0);
  ExpectNothingLeft(driver.core);
}

TEST(EngineCore, "counts a request as waiting until a step works on it or it is aborted") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_seqs = 4;
  Driver driver(nullptr, config);
  for (RequestId id = 1; id <= 6; ++id) driver.core.AddRequest(MakeRequest(id, 4, 50), driver.output);
  EXPECT_EQ(driver.core.num_waiting_requests(), 6);
  driver.core.Step(driver.output);
  EXPECT_EQ(driver.core.num_waiting_requests(), 2);
  driver.core.AbortRequest(6, driver.output);
  EXPECT_EQ(driver.core.num_waiting_requests(), 1);
  driver.core.AbortRequest(1, driver.output);
  EXPECT_EQ(driver.core.num_waiting_requests(), 1);
}

TEST(EngineCore, "pauses a request whose tokens nobody takes, alone, and resumes it when half are taken") {
  SchedulerConfig config = RoomyConfig();
  config.max_model_len = 4096;
  config.num_blocks = 2049;
  Driver driver(nullptr, config);
  driver.core.AddRequest(MakeRequest(1, 4, 3000), driver.output);
  for (int i = 0; i < 1025; ++i) driver.core.Step(driver.output);
  EXPECT_EQ(NumTokens(driver, 1), 1025);
  EXPECT_TRUE(!driver.core.Step(driver.output));
  driver.core.AddRequest(MakeRequest(2, 4, 10), driver.output);
  for (int i = 0; i < 10; ++i) driver.core.Step(driver.output);
  EXPECT_EQ(NumTokens(driver, 2), 10);
  EXPECT_EQ(NumTokens(driver, 1), 1025);
  driver.core.Acknowledge(1, 512);
  EXPECT_TRUE(!driver.core.Step(driver.output));
  driver.core.Acknowledge(1, 1);
  EXPECT_TRUE(driver.core.Step(driver.output));
  EXPECT_EQ(NumTokens(driver, 1), 1026);
}

TEST(EngineCore, "keeps a step ahead of one under way, and gives the same as without") {
  Driver driver(nullptr, RoomyConfig(), 2);
  Request stopped = MakeRequest(2, 5, 10);
  stopped.sampling_params.stop_token_ids = {1};
  driver.Run({Forked(1, 3), stopped, Forked(3, 1)});
  const auto endings = driver.Endings();
  EXPECT_EQ(endings.size(), 5u);
  for (int index = 0; index < 3; ++index) ExpectWhole(endings.at({1, index}));
  EXPECT_TRUE(endings.at({2, 0}).reason == FinishReason::kStop);
  EXPECT_EQ(endings.at({2, 0}).num_tokens, 1);
  ExpectWhole(endings.at({3, 0}));
  EXPECT_EQ(driver.core.num_generated_tokens(), 17);
  ExpectNothingLeft(driver.core);
}

TEST(EngineCore, "waits for a step whose requests were all aborted meanwhile") {
  Driver driver(nullptr, RoomyConfig(), 2);
  driver.core.AddRequest(MakeRequest(1, 5, 10), driver.output);
  EXPECT_TRUE(driver.core.Step(driver.output));
  driver.core.AbortRequest(1, driver.output);
  EXPECT_TRUE(driver.core.HasWork());
  EXPECT_TRUE(driver.core.Step(driver.output));
  EXPECT_EQ(NumTokens(driver, 1), 1);
  EXPECT_TRUE(!driver.core.Step(driver.output));
  ExpectNothingLeft(driver.core);
}

TEST(EngineCore, "passes the failure of a rank on") {
  Driver driver([](SequenceOutput&, int step) {
    if (step == 1) throw Error(ErrorCode::kRankFailed, "rank 1 failed: on purpose");
  });
  driver.core.AddRequest(MakeRequest(1, 4, 10), driver.output);
  driver.core.Step(driver.output);
  EXPECT_ERROR(ErrorCode::kRankFailed, driver.core.Step(driver.output));
}

}  // namespace
}  // namespace heddle
