// A step scheduled before the one under way was taken in.
#include "scheduler_testing.h"
#include "test.h"

namespace heddle {
namespace {

using test::MakeRequest;
using test::RoomyConfig;

ModelOutput OutputOf(const SchedulerOutput& step, int32_t token) {
  ModelOutput output;
  for (const ScheduledSequence& scheduled : step.scheduled) {
    SequenceOutput& sequence = output.sequences.emplace_back();
    sequence.id = scheduled.id;
    sequence.sampled = scheduled.samples;
    sequence.token_id = token;
  }
  return output;
}

void ExpectNothingLeft(const Scheduler& scheduler) {
  const SchedulerStats stats = scheduler.stats();
  EXPECT_TRUE(!scheduler.HasRequests());
  EXPECT_EQ(stats.num_free_blocks, stats.num_total_blocks);
}

TEST(SchedulerAhead, "computes the pending token, and tells ranks of it a step later") {
  Scheduler scheduler(RoomyConfig());
  scheduler.AddRequest(MakeRequest(1, 5, 10));
  const SchedulerOutput prompt = scheduler.Schedule();
  EXPECT_TRUE(scheduler.MayScheduleAhead());
  const SchedulerOutput ahead = scheduler.Schedule();
  EXPECT_EQ(ahead.cached_sequences.at(0).num_computed_tokens, 5);
  EXPECT_EQ(ahead.cached_sequences.at(0).num_new_tokens, 0);
  EXPECT_TRUE(ahead.new_token_ids.empty());
  EXPECT_EQ(ahead.scheduled.at(0).num_scheduled_tokens, 1);
  EXPECT_TRUE(ahead.scheduled.at(0).samples);
  EXPECT_TRUE(!scheduler.MayScheduleAhead());

  EXPECT_EQ(scheduler.Update(prompt, OutputOf(prompt, 7)).at(0).token_id, 7);
  const SchedulerOutput next = scheduler.Schedule();
  EXPECT_TRUE(next.new_token_ids == std::vector<int32_t>{7});
  EXPECT_EQ(next.cached_sequences.at(0).num_computed_tokens, 6);
  EXPECT_EQ(scheduler.Update(ahead, OutputOf(ahead, 8)).at(0).num_generated_tokens, 2);
  scheduler.CheckConsistency();
}

TEST(SchedulerAhead, "computes nothing for a sequence that the step under way ends by length") {
  SchedulerConfig config = RoomyConfig();
  config.max_model_len = 8;
  Scheduler scheduler(config);
  scheduler.AddRequest(MakeRequest(1, 5, 1));
  scheduler.AddRequest(MakeRequest(2, 7, 10));
  scheduler.AddRequest(MakeRequest(3, 5, 10));
  const SchedulerOutput prompts = scheduler.Schedule();
  EXPECT_EQ(prompts.scheduled.size(), 3u);
  const SchedulerOutput ahead = scheduler.Schedule();
  EXPECT_EQ(ahead.scheduled.size(), 1u);
  EXPECT_EQ(ahead.scheduled.at(0).id, prompts.scheduled.at(2).id);
}

TEST(SchedulerAhead, "drops what a step ahead gave a sequence that ended before it, and frees its blocks once") {
  Scheduler scheduler(RoomyConfig());
  Request request = MakeRequest(1, 5, 10);
  request.sampling_params.stop_token_ids = {9};
  scheduler.AddRequest(request);
  const SchedulerOutput prompt = scheduler.Schedule();
  const SchedulerOutput ahead = scheduler.Schedule();
  const auto updates = scheduler.Update(prompt, OutputOf(prompt, 9));
  EXPECT_TRUE(updates.at(0).finish_reason == FinishReason::kStop);
  ExpectNothingLeft(scheduler);
  EXPECT_TRUE(scheduler.Update(ahead, OutputOf(ahead, 3)).empty());
  ExpectNothingLeft(scheduler);
  scheduler.CheckConsistency();
}

TEST(SchedulerAhead, "waits for the pending token of a sequence whose sampling looks back at it, unless it is paused") {
  Scheduler scheduler(RoomyConfig());
  Request request = MakeRequest(1, 5, 10);
  request.sampling_params.bad_words = {{3, 4}};
  scheduler.AddRequest(MakeRequest(2, 5, 10));
  scheduler.AddRequest(request);
  const SchedulerOutput prompt = scheduler.Schedule();
  EXPECT_TRUE(!scheduler.MayScheduleAhead());
  scheduler.SetPaused(1, true);
  EXPECT_TRUE(scheduler.MayScheduleAhead());
}

TEST(SchedulerAhead, "keeps the token of a sequence that is preempted while it is sampled, and admits it after that") {
  SchedulerConfig config = RoomyConfig();
  config.max_model_len = 16;
  config.num_blocks = 5;  // of 4 slots each, one of them the null block
  config.enable_prefix_caching = false;
  Scheduler scheduler(config);
  scheduler.AddRequest(MakeRequest(1, 4, 12));
  scheduler.AddRequest(MakeRequest(2, 7, 9));
  SchedulerOutput under_way = scheduler.Schedule();
  EXPECT_EQ(under_way.scheduled.size(), 2u);
  const SequenceId second = under_way.scheduled.at(1).id;
  std::vector<int32_t> tokens;
  bool preempted = false;
  // The first grows into a second and a third block; the other two are the second's until it is preempted.
  for (int i = 0; i < 20 && !preempted; ++i) {
    const SchedulerOutput ahead = scheduler.Schedule();
    preempted = std::find(ahead.finished.begin(), ahead.finished.end(), second) != ahead.finished.end();
    for (const SequenceUpdate& update : scheduler.Update(under_way, OutputOf(under_way, 100 + i))) {
      if (update.sequence_id == second) tokens.push_back(update.token_id);
    }
    under_way = ahead;
    scheduler.CheckConsistency();
  }
  EXPECT_TRUE(preempted);
  scheduler.Update(under_way, OutputOf(under_way, 1));
  scheduler.AbortRequest(1);
  const SchedulerOutput again = scheduler.Schedule();
  const std::vector<int32_t>& known = again.new_sequences.at(0).token_ids;
  EXPECT_TRUE(std::vector<int32_t>(known.begin() + 7, known.end()) == tokens);
}

}  // namespace
}  // namespace heddle
