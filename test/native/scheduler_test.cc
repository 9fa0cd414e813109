// What the scheduler runs, when, and with whose blocks.
#include "scheduler/scheduler.h"

#include "scheduler_testing.h"
#include "test.h"

namespace heddle {
namespace {

using test::kBlockSize;
using test::MakeRequest;
using test::RoomyConfig;
using test::SchedulerDriver;

using Ids = std::vector<RequestId>;
using Counts = std::vector<int>;

Request Prioritized(RequestId id, int prompt_len, int max_tokens, int priority) {
  Request request = MakeRequest(id, prompt_len, max_tokens);
  request.priority = priority;
  return request;
}

// Room for `num_blocks` blocks and sequences of as many tokens as they hold.
SchedulerConfig TightConfig(int num_blocks) {
  SchedulerConfig config = RoomyConfig();
  config.num_blocks = num_blocks + 1;
  config.max_model_len = num_blocks * kBlockSize;
  return config;
}

TEST(Scheduler, "has nothing to do without requests") {
  SchedulerDriver driver(RoomyConfig());
  EXPECT_TRUE(driver.Schedule().empty());
  EXPECT_TRUE(driver.EverythingFree());
}

TEST(Scheduler, "runs a request from its prompt to its last token and frees every block") {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AddRequest(MakeRequest(1, 6, 3));
  EXPECT_EQ(driver.Drain(), 3);
  EXPECT_TRUE(driver.EverythingFree());
}

TEST(Scheduler, "cuts a long prompt into chunks and samples only after the last") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_batched_tokens = 8;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(MakeRequest(1, 20, 2));
  for (const int tokens : {8, 8, 4, 1}) {
    driver.Schedule();
    EXPECT_TRUE(driver.ScheduledTokens() == Counts{tokens});
    EXPECT_EQ(driver.step.scheduled[0].samples, tokens < 8);
    EXPECT_EQ(driver.Update().size(), tokens < 8 ? 1u : 0u);
  }
}

TEST(Scheduler, "gives running sequences their token first and prompts what is left of the budget") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_batched_tokens = 10;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(MakeRequest(1, 4, 9));
  driver.scheduler.AddRequest(MakeRequest(2, 5, 9));
  driver.Step();
  driver.scheduler.AddRequest(MakeRequest(3, 20, 9));
  driver.Schedule();
  EXPECT_TRUE(driver.Scheduled() == (Ids{1, 2, 3}));
  EXPECT_TRUE(driver.ScheduledTokens() == (Counts{1, 1, 8}));
  EXPECT_EQ(driver.step.total_num_scheduled_tokens, 10);
}

TEST(Scheduler, "leaves a token to each running sequence that comes after a long prompt") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_batched_tokens = 10;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(MakeRequest(1, 40, 9));
  driver.Step();
  driver.scheduler.SetPaused(1, true);
  driver.scheduler.AddRequest(MakeRequest(2, 4, 9));
  driver.scheduler.AddRequest(MakeRequest(3, 4, 9));
  driver.Step();
  driver.scheduler.SetPaused(1, false);
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == (Ids{1, 2, 3}));
  EXPECT_TRUE(driver.ScheduledTokens() == (Counts{8, 1, 1}));
}

TEST(Scheduler, "leaves no more than max_num_seqs allows to run beside a long prompt") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_seqs = 2;
  config.max_num_batched_tokens = 10;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(MakeRequest(1, 40, 9));
  driver.Step();
  driver.scheduler.SetPaused(1, true);
  for (RequestId id = 2; id <= 7; ++id) {
    driver.scheduler.AddRequest(MakeRequest(id, 4, 9));
    driver.Step();
    driver.scheduler.SetPaused(id, true);
  }
  for (RequestId id = 1; id <= 7; ++id) driver.scheduler.SetPaused(id, false);
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == (Ids{1, 2}));
  EXPECT_TRUE(driver.ScheduledTokens() == (Counts{9, 1}));
}

TEST(Scheduler, "sends ranks all of a new sequence and then only what changed") {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AddRequest(MakeRequest(1, 7, 9));
  driver.token = [](SequenceId) { return 42; };
  driver.Step();
  EXPECT_EQ(driver.step.new_sequences.size(), 1u);
  EXPECT_TRUE(driver.step.new_sequences[0].token_ids == MakeRequest(1, 7, 9).prompt_token_ids);
  EXPECT_EQ(driver.step.new_sequences[0].block_ids.size(), 2u);

  driver.Step();
  EXPECT_TRUE(driver.step.new_sequences.empty());
  EXPECT_EQ(driver.step.cached_sequences[0].num_new_tokens, 1);
  EXPECT_TRUE(driver.step.new_token_ids == std::vector<int32_t>{42});
  EXPECT_TRUE(driver.step.new_block_ids.empty());
  EXPECT_EQ(driver.step.cached_sequences[0].num_computed_tokens, 7);

  driver.Step();
  EXPECT_EQ(driver.step.cached_sequences[0].num_new_blocks, 1);
  EXPECT_EQ(driver.step.new_block_ids.size(), 1u);
  EXPECT_EQ(driver.step.cached_sequences[0].num_computed_tokens, 8);
}

TEST(Scheduler, "runs no more than max_num_seqs sequences at once") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_seqs = 2;
  SchedulerDriver driver(config);
  for (RequestId id = 1; id <= 3; ++id) driver.scheduler.AddRequest(MakeRequest(id, 4, 2));
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == (Ids{1, 2}));
  EXPECT_EQ(driver.scheduler.stats().num_running, 2);
  EXPECT_EQ(driver.scheduler.stats().num_waiting, 1);
  driver.Steps(2);
  EXPECT_TRUE(driver.Scheduled() == Ids{3});
}

TEST(Scheduler, "names an ended sequence once, in the next step that ranks compute") {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AddRequest(MakeRequest(1, 4, 1));
  driver.Step();
  const SequenceId ended = driver.step.scheduled[0].id;
  EXPECT_TRUE(driver.Schedule().empty());
  EXPECT_TRUE(driver.step.finished.empty());
  driver.scheduler.AddRequest(MakeRequest(2, 4, 2));
  driver.Step();
  EXPECT_TRUE(driver.step.finished == std::vector<SequenceId>{ended});
  driver.Step();
  EXPECT_TRUE(driver.step.finished.empty());
}

TEST(Scheduler, "admits by age under kFcfs, whatever the priority") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_seqs = 2;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(Prioritized(1, 4, 4, 9));
  driver.scheduler.AddRequest(Prioritized(2, 4, 4, 5));
  driver.scheduler.AddRequest(Prioritized(3, 4, 4, 1));
  driver.Schedule();
  EXPECT_TRUE(driver.Scheduled() == (Ids{1, 2}));
}

TEST(Scheduler, "admits and runs by priority, then age, under kPriority") {
  SchedulerConfig config = RoomyConfig();
  config.policy = SchedulingPolicy::kPriority;
  config.max_num_seqs = 3;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(Prioritized(1, 4, 1, 5));
  driver.scheduler.AddRequest(Prioritized(2, 4, 4, 5));
  driver.scheduler.AddRequest(Prioritized(3, 4, 4, 9));
  driver.scheduler.AddRequest(Prioritized(4, 4, 4, -1));
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == (Ids{4, 1, 2}));
  driver.scheduler.AddRequest(Prioritized(5, 4, 4, 0));
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == (Ids{4, 2, 5}));
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == (Ids{4, 5, 2}));
}

TEST(Scheduler, "refuses a request beyond max_num_waiting and goes on") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_waiting = 2;
  config.max_num_seqs = 1;
  SchedulerDriver driver(config);
  Request forked = MakeRequest(1, 4, 2);
  forked.sampling_params.n = 5;
  driver.scheduler.AddRequest(forked);
  driver.scheduler.AddRequest(MakeRequest(2, 4, 2));
  EXPECT_ERROR(ErrorCode::kQueueFull, driver.scheduler.AddRequest(MakeRequest(3, 4, 2)));
  driver.Step();
  driver.scheduler.AddRequest(MakeRequest(3, 4, 2));
  EXPECT_ERROR(ErrorCode::kQueueFull, driver.scheduler.AddRequest(MakeRequest(4, 4, 2)));
  driver.scheduler.AbortRequest(2);
  driver.scheduler.AddRequest(MakeRequest(4, 4, 2));
  driver.Drain();
  EXPECT_TRUE(driver.EverythingFree());
}

TEST(Scheduler, "refuses a prompt that is empty or leaves no room for a token") {
  SchedulerDriver driver(RoomyConfig());
  EXPECT_ERROR(ErrorCode::kInvalidArgument, driver.scheduler.AddRequest(MakeRequest(1, 0, 2)));
  EXPECT_ERROR(ErrorCode::kInvalidArgument, driver.scheduler.AddRequest(MakeRequest(1, 64, 2)));
  EXPECT_ERROR(ErrorCode::kInvalidArgument, driver.scheduler.AddRequest(MakeRequest(1, 4, 0)));
  EXPECT_TRUE(driver.EverythingFree());
  driver.scheduler.AddRequest(MakeRequest(1, 63, 2));
  EXPECT_EQ(driver.Drain(), 1);
}

TEST(Scheduler, "refuses a pool that cannot hold one sequence of max_model_len") {
  SchedulerConfig config = RoomyConfig();
  config.num_blocks = 16;
  EXPECT_ERROR(ErrorCode::kInternal, Scheduler{config});
}

TEST(Scheduler, "admits a request only when its whole prompt fits with room for the running to grow") {
  SchedulerDriver driver(TightConfig(6));
  driver.scheduler.AddRequest(MakeRequest(1, 8, 9));
  driver.scheduler.AddRequest(MakeRequest(2, 16, 4));
  driver.scheduler.AddRequest(MakeRequest(3, 4, 1));
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == Ids{1});
  driver.Drain();
  EXPECT_EQ(driver.scheduler.stats().num_preemptions, 0);
  EXPECT_TRUE(driver.EverythingFree());
}

// In a pool of 5 blocks both run for two steps; in the third both need a third block, and one is left.
void RunTwoThatOutgrowThePool(SchedulerDriver& driver) {
  driver.scheduler.AddRequest(MakeRequest(1, 7, 9));
  driver.scheduler.AddRequest(MakeRequest(2, 7, 9));
  driver.Steps(2);
}

TEST(Scheduler, "preempts the youngest for want of blocks and brings it back with all its tokens") {
  SchedulerDriver driver(TightConfig(5));
  RunTwoThatOutgrowThePool(driver);
  EXPECT_TRUE(driver.Scheduled() == (Ids{1, 2}));
  const SequenceId youngest = driver.step.scheduled[1].id;
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == Ids{1});
  EXPECT_TRUE(driver.step.finished == std::vector<SequenceId>{youngest});
  EXPECT_EQ(driver.scheduler.stats().num_preemptions, 1);
  EXPECT_EQ(driver.scheduler.stats().num_waiting, 1);

  while (driver.Scheduled() == Ids{1}) driver.Step();
  EXPECT_TRUE(driver.Scheduled() == Ids{2});
  EXPECT_EQ(driver.step.new_sequences.size(), 1u);
  EXPECT_EQ(driver.step.new_sequences[0].id, youngest);
  EXPECT_EQ(driver.step.new_sequences[0].prompt_len, 7);
  EXPECT_EQ(driver.step.new_sequences[0].token_ids.size(), 9u);
  driver.Drain();
  EXPECT_TRUE(driver.EverythingFree());
}

TEST(Scheduler, "preempts the less urgent, though it is older, under kPriority") {
  SchedulerConfig config = TightConfig(5);
  config.policy = SchedulingPolicy::kPriority;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(Prioritized(1, 7, 9, 1));
  driver.scheduler.AddRequest(Prioritized(2, 7, 9, 0));
  driver.Steps(3);
  EXPECT_TRUE(driver.Scheduled() == Ids{2});
}

TEST(Scheduler, "never preempts the oldest, and ends all of many in a pool that holds a few") {
  SchedulerConfig config = TightConfig(8);
  config.max_num_waiting = 40;
  SchedulerDriver driver(config);
  for (RequestId id = 1; id <= 40; ++id) {
    driver.scheduler.AddRequest(MakeRequest(id, 1 + static_cast<int>(id % 7), 20));
  }
  RequestId oldest = 1;
  for (int i = 0; i < 2000 && driver.scheduler.HasRequests(); ++i) {
    driver.Step();
    EXPECT_EQ(driver.Scheduled().at(0), oldest);
    for (const SequenceUpdate& update : driver.updates) {
      if (update.finish_reason != FinishReason::kNone && update.request_id == oldest) oldest = update.request_id + 1;
    }
  }
  EXPECT_TRUE(driver.scheduler.stats().num_preemptions > 0);
  EXPECT_TRUE(driver.EverythingFree());
}

TEST(Scheduler, "admits nobody in a step in which a sequence found no block, however urgent") {
  SchedulerConfig config = TightConfig(5);
  config.policy = SchedulingPolicy::kPriority;
  SchedulerDriver driver(config);
  RunTwoThatOutgrowThePool(driver);
  driver.scheduler.AddRequest(Prioritized(3, 1, 1, -1));
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == Ids{1});
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == (Ids{1, 3}));
}

TEST(Scheduler, "admits nobody in a step in which a sequence took the blocks of another") {
  SchedulerConfig config = TightConfig(5);
  config.policy = SchedulingPolicy::kPriority;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(MakeRequest(1, 8, 9));
  driver.Step();
  driver.scheduler.SetPaused(1, true);
  driver.scheduler.AddRequest(MakeRequest(2, 10, 9));
  driver.Step();
  driver.scheduler.SetPaused(1, false);
  driver.scheduler.AddRequest(Prioritized(3, 1, 1, -1));
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == Ids{1});
  EXPECT_EQ(driver.scheduler.stats().num_preemptions, 1);
}

TEST(Scheduler, "takes back what a preempted sequence computed when its blocks are still there") {
  SchedulerDriver driver(TightConfig(5));
  RunTwoThatOutgrowThePool(driver);
  driver.Step();
  const int64_t queries = driver.scheduler.stats().prefix_cache_queries;
  driver.scheduler.AbortRequest(1);
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == Ids{2});
  EXPECT_EQ(driver.step.new_sequences[0].num_computed_tokens, 8);
  EXPECT_TRUE(driver.ScheduledTokens() == Counts{1});
  EXPECT_EQ(driver.updates[0].num_cached_tokens, 0);
  EXPECT_EQ(driver.scheduler.stats().prefix_cache_queries, queries);
  EXPECT_EQ(driver.scheduler.stats().prefix_cache_hits, 0);
}

TEST(Scheduler, "starts a preempted sequence over from its tokens without prefix caching") {
  SchedulerConfig config = TightConfig(5);
  config.enable_prefix_caching = false;
  SchedulerDriver driver(config);
  RunTwoThatOutgrowThePool(driver);
  driver.Step();
  driver.scheduler.AbortRequest(1);
  driver.Step();
  EXPECT_EQ(driver.step.new_sequences[0].num_computed_tokens, 0);
  EXPECT_TRUE(driver.ScheduledTokens() == Counts{9});
}

TEST(Scheduler, "leaves a paused request out and resumes it where it was") {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AddRequest(MakeRequest(1, 4, 9));
  driver.scheduler.AddRequest(MakeRequest(2, 4, 9));
  driver.Schedule();
  driver.scheduler.SetPaused(1, true);
  EXPECT_EQ(driver.Update().size(), 2u);
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == Ids{2});
  driver.scheduler.SetPaused(2, true);
  EXPECT_TRUE(driver.Schedule().empty());
  EXPECT_TRUE(driver.scheduler.HasRequests());
  EXPECT_EQ(driver.scheduler.stats().num_running, 2);
  driver.scheduler.SetPaused(1, false);
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == Ids{1});
  EXPECT_TRUE(driver.step.new_sequences.empty());
  EXPECT_EQ(driver.step.cached_sequences[0].num_new_tokens, 1);
  EXPECT_EQ(driver.step.new_token_ids.size(), 1u);
}

TEST(Scheduler, "admits others past a paused request at the head of the line") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_seqs = 1;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(MakeRequest(1, 4, 9));
  driver.scheduler.AddRequest(MakeRequest(2, 4, 9));
  driver.scheduler.AddRequest(MakeRequest(3, 4, 9));
  driver.scheduler.SetPaused(1, true);
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == Ids{2});
  driver.scheduler.SetPaused(2, true);
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == Ids{3});
}

TEST(Scheduler, "keeps to max_num_seqs when paused requests resume, the oldest first") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_seqs = 1;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(MakeRequest(1, 4, 9));
  driver.scheduler.AddRequest(MakeRequest(2, 4, 9));
  driver.Step();
  driver.scheduler.SetPaused(1, true);
  driver.Step();
  driver.scheduler.SetPaused(1, false);
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == Ids{1});
}

TEST(Scheduler, "takes the blocks of a paused request, though it is the oldest, before any other's") {
  SchedulerDriver driver(TightConfig(5));
  RunTwoThatOutgrowThePool(driver);
  driver.scheduler.SetPaused(1, true);
  driver.Steps(3);
  driver.scheduler.AddRequest(MakeRequest(3, 3, 2));
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == (Ids{2, 3}));
  EXPECT_EQ(driver.scheduler.stats().num_preemptions, 1);
  driver.scheduler.SetPaused(1, false);
  driver.Drain();
  EXPECT_TRUE(driver.EverythingFree());
}

TEST(Scheduler, "admits a request that fits only into the blocks of paused ones") {
  SchedulerDriver driver(TightConfig(4));
  driver.scheduler.AddRequest(MakeRequest(1, 14, 2));
  driver.Step();
  driver.scheduler.SetPaused(1, true);
  driver.scheduler.AddRequest(MakeRequest(2, 14, 1));
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == Ids{2});
  driver.scheduler.SetPaused(1, false);
  EXPECT_EQ(driver.Drain(), 1);
  EXPECT_TRUE(driver.EverythingFree());
}

TEST(Scheduler, "aborts a request that waits, one in the middle of its prompt and one that decodes") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_batched_tokens = 8;
  config.max_num_seqs = 2;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(MakeRequest(1, 4, 9));
  driver.scheduler.AddRequest(MakeRequest(2, 20, 9));
  driver.scheduler.AddRequest(MakeRequest(3, 4, 9));
  driver.Step();
  for (RequestId id = 3; id >= 1; --id) driver.scheduler.AbortRequest(id);
  EXPECT_TRUE(driver.EverythingFree());
  EXPECT_TRUE(driver.Schedule().empty());
}

TEST(Scheduler, "frees an aborted request's blocks at once and skips it in the step under way") {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AddRequest(MakeRequest(1, 4, 9));
  driver.scheduler.AddRequest(MakeRequest(2, 4, 9));
  driver.Schedule();
  const SequenceId aborted = driver.step.scheduled[0].id;
  driver.scheduler.AbortRequest(1);
  EXPECT_EQ(driver.scheduler.stats().num_free_blocks, 63);
  EXPECT_EQ(driver.Update().size(), 1u);
  EXPECT_EQ(driver.updates[0].request_id, 2u);
  driver.Schedule();
  EXPECT_TRUE(driver.step.finished == std::vector<SequenceId>{aborted});
}

TEST(Scheduler, "ignores ids that it does not know") {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AbortRequest(1);
  driver.scheduler.FinishSequence(1);
  driver.scheduler.SetPaused(1, true);
  EXPECT_TRUE(driver.EverythingFree());
}

}  // namespace
}  // namespace heddle
