// What the scheduler makes of a step's results: forks, cached prefixes, prompt log-probabilities.
#include "scheduler_testing.h"
#include "test.h"

namespace heddle {
namespace {

using test::kBlockSize;
using test::MakeRequest;
using test::RoomyConfig;
using test::SchedulerDriver;

Request Forked(int n, int prompt_len, int max_tokens) {
  Request request = MakeRequest(1, prompt_len, max_tokens);
  request.sampling_params.n = n;
  return request;
}

TEST(Forks, "compute a prompt once and share its full blocks, with prefix caching or without") {
  for (const bool caching : {true, false}) {
    SchedulerConfig config = RoomyConfig();
    config.enable_prefix_caching = caching;
    SchedulerDriver driver(config);
    driver.scheduler.AddRequest(Forked(3, 10, 4));
    driver.Step();
    EXPECT_EQ(driver.step.scheduled.size(), 1u);
    const std::vector<int32_t> blocks = driver.step.new_sequences[0].block_ids;
    driver.Step();
    EXPECT_TRUE(driver.ScheduledTokens() == (std::vector<int>{1, 2, 2}));
    for (int fork = 0; fork < 2; ++fork) {
      const NewSequenceData& sequence = driver.step.new_sequences.at(static_cast<size_t>(fork));
      EXPECT_EQ(sequence.sequence_index, fork + 1);
      EXPECT_EQ(sequence.num_computed_tokens, 8);
      EXPECT_TRUE(sequence.token_ids == Forked(3, 10, 4).prompt_token_ids);
      EXPECT_EQ(sequence.block_ids[0], blocks[0]);
      EXPECT_EQ(sequence.block_ids[1], blocks[1]);
      EXPECT_TRUE(sequence.block_ids[2] != blocks[2]);
    }
    EXPECT_EQ(driver.scheduler.stats().num_free_blocks, 64 - 5);
    driver.Drain();
    EXPECT_TRUE(driver.EverythingFree());
  }
}

TEST(Forks, "each compute the last token of a prompt that fills its blocks") {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AddRequest(Forked(2, 8, 4));
  driver.Steps(2);
  EXPECT_EQ(driver.step.new_sequences.at(0).num_computed_tokens, 4);
  EXPECT_TRUE(driver.ScheduledTokens() == (std::vector<int>{1, 4}));
}

TEST(Forks, "of a prompt shorter than a block share nothing") {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AddRequest(Forked(2, 3, 4));
  driver.Steps(2);
  EXPECT_EQ(driver.step.new_sequences.at(0).num_computed_tokens, 0);
  EXPECT_TRUE(driver.ScheduledTokens() == (std::vector<int>{1, 3}));
}

TEST(Forks, "are made though the first sequence ends with its first token") {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AddRequest(Forked(3, 10, 1));
  driver.Step();
  EXPECT_EQ(driver.updates.size(), 1u);
  driver.Step();
  EXPECT_EQ(driver.updates.size(), 2u);
  EXPECT_EQ(driver.step.new_sequences.at(0).num_computed_tokens, 8);
  EXPECT_TRUE(driver.EverythingFree());
}

TEST(Forks, "count towards max_num_seqs") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_seqs = 2;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(Forked(4, 10, 3));
  EXPECT_EQ(driver.scheduler.stats().num_waiting, 4);
  driver.Steps(2);
  EXPECT_EQ(driver.step.scheduled.size(), 2u);
  driver.Drain();
  EXPECT_TRUE(driver.EverythingFree());
}

TEST(Forks, "take over when the first sequence ends before the prompt is computed") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_batched_tokens = 8;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(Forked(3, 20, 2));
  driver.Step();
  driver.scheduler.FinishSequence(driver.step.scheduled[0].id);
  driver.Step();
  EXPECT_EQ(driver.step.new_sequences.at(0).sequence_index, 1);
  EXPECT_EQ(driver.step.new_sequences[0].num_computed_tokens, 8);
  driver.Drain();
  EXPECT_TRUE(driver.EverythingFree());
}

TEST(Forks, "compute the prompt anew when the first sequence had no valid logits") {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AddRequest(Forked(2, 10, 2));
  driver.edit = [](SequenceOutput& output) {
    if (output.id != 1) return;
    output.failure = SequenceFailure::kInvalidLogits;
    output.sampled = false;
  };
  driver.Step();
  EXPECT_TRUE(driver.updates.at(0).finish_reason == FinishReason::kError);
  driver.Step();
  EXPECT_EQ(driver.step.new_sequences.at(0).sequence_index, 1);
  EXPECT_EQ(driver.step.new_sequences[0].num_computed_tokens, 0);
  driver.Drain();
  EXPECT_TRUE(driver.EverythingFree());
}

TEST(Forks, "survive that the first sequence is preempted in the middle of the prompt") {
  SchedulerConfig config = RoomyConfig();
  config.num_blocks = 9;
  config.max_model_len = 32;
  config.max_num_batched_tokens = 8;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(MakeRequest(2, 7, 20));
  driver.Step();
  driver.scheduler.AddRequest(Forked(2, 18, 2));
  driver.Steps(2);
  driver.scheduler.SetPaused(1, true);
  driver.scheduler.AddRequest(MakeRequest(3, 15, 1));
  driver.Steps(3);
  EXPECT_EQ(driver.scheduler.stats().num_preemptions, 1);
  driver.scheduler.SetPaused(1, false);
  driver.Drain();
  EXPECT_TRUE(driver.EverythingFree());
}

TEST(Forks, "give up the blocks that they share while they wait, when someone older needs them") {
  SchedulerConfig config = RoomyConfig();
  config.num_blocks = 9;
  config.max_model_len = 32;
  config.max_num_seqs = 2;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(MakeRequest(2, 4, 28));
  driver.scheduler.AddRequest(Forked(2, 14, 15));
  while (driver.scheduler.stats().num_preemptions == 0 && driver.scheduler.HasRequests()) driver.Step();
  EXPECT_TRUE(driver.Scheduled() == std::vector<RequestId>{2});
  const int num_tokens = driver.step.cached_sequences.at(0).num_computed_tokens + 1;
  EXPECT_EQ(driver.scheduler.stats().num_free_blocks, 8 - (num_tokens + kBlockSize - 1) / kBlockSize);
  driver.Drain();
  EXPECT_TRUE(driver.EverythingFree());
}

TEST(Forks, "end with their request, wherever they are") {
  for (const int steps : {0, 1, 2, 3}) {
    SchedulerConfig config = RoomyConfig();
    config.max_num_seqs = 2;
    SchedulerDriver driver(config);
    driver.scheduler.AddRequest(Forked(4, 10, 2));
    driver.Steps(steps);
    driver.scheduler.AbortRequest(1);
    EXPECT_TRUE(driver.EverythingFree());
    EXPECT_TRUE(driver.Schedule().empty());
  }
}

// The same prompt as request 1's, under another id.
Request Twin(RequestId id, int prompt_len) {
  Request request = MakeRequest(1, prompt_len, 4);
  request.id = id;
  return request;
}

// Computed tokens that the twin starts with, after request 1 ran to its end.
int CachedForTwin(const SchedulerConfig& config, const Request& first, const Request& twin, SchedulerStats* stats) {
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(first);
  driver.Drain();
  driver.scheduler.AddRequest(twin);
  driver.Step();
  EXPECT_EQ(driver.updates.at(0).num_cached_tokens, driver.step.new_sequences.at(0).num_computed_tokens);
  *stats = driver.scheduler.stats();
  return driver.step.new_sequences[0].num_computed_tokens;
}

TEST(PrefixCache, "spares a later request the blocks that it shares, and counts tokens asked for and found") {
  SchedulerStats stats;
  EXPECT_EQ(CachedForTwin(RoomyConfig(), Twin(1, 10), Twin(2, 11), &stats), 8);
  EXPECT_EQ(stats.prefix_cache_queries, 21);
  EXPECT_EQ(stats.prefix_cache_hits, 8);
}

TEST(PrefixCache, "leaves a token to compute of a prompt that is cached whole") {
  SchedulerStats stats;
  EXPECT_EQ(CachedForTwin(RoomyConfig(), Twin(1, 8), Twin(2, 8), &stats), 4);
}

TEST(PrefixCache, "is neither read nor counted when switched off, or when a request does not want it") {
  SchedulerStats stats;
  SchedulerConfig config = RoomyConfig();
  config.enable_prefix_caching = false;
  EXPECT_EQ(CachedForTwin(config, Twin(1, 10), Twin(2, 10), &stats), 0);
  EXPECT_EQ(stats.prefix_cache_queries, 0);

  Request twin = Twin(2, 10);
  twin.sampling_params.skip_reading_prefix_cache = true;
  EXPECT_EQ(CachedForTwin(RoomyConfig(), Twin(1, 10), twin, &stats), 0);
  EXPECT_EQ(stats.prefix_cache_queries, 10);

  twin = Twin(2, 10);
  twin.sampling_params.prompt_logprobs = 0;
  EXPECT_EQ(CachedForTwin(RoomyConfig(), Twin(1, 10), twin, &stats), 0);
}

TEST(PrefixCache, "is filled by requests that do not read it") {
  SchedulerStats stats;
  Request first = Twin(1, 10);
  first.sampling_params.skip_reading_prefix_cache = true;
  EXPECT_EQ(CachedForTwin(RoomyConfig(), first, Twin(2, 10), &stats), 8);
}

TEST(PrefixCache, "is shared only within a salt") {
  SchedulerStats stats;
  Request red = Twin(1, 10);
  red.cache_salt = "red";
  Request blue = Twin(2, 10);
  blue.cache_salt = "blue";
  EXPECT_EQ(CachedForTwin(RoomyConfig(), red, blue, &stats), 0);
  EXPECT_EQ(CachedForTwin(RoomyConfig(), red, Twin(2, 10), &stats), 0);
  blue.cache_salt = "red";
  EXPECT_EQ(CachedForTwin(RoomyConfig(), red, blue, &stats), 8);
}

TEST(PrefixCache, "holds generated tokens too") {
  SchedulerStats stats;
  Request twin = Twin(2, 6);
  twin.prompt_token_ids.insert(twin.prompt_token_ids.end(), {1, 1, 1, 5});
  EXPECT_EQ(CachedForTwin(RoomyConfig(), Twin(1, 6), twin, &stats), 8);
}

TEST(PrefixCache, "has nothing of a prompt that is still being computed") {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AddRequest(Twin(1, 10));
  driver.scheduler.AddRequest(Twin(2, 10));
  driver.Step();
  EXPECT_TRUE(driver.ScheduledTokens() == (std::vector<int>{10, 10}));
  driver.scheduler.AddRequest(Twin(3, 10));
  driver.Schedule();
  EXPECT_TRUE(driver.ScheduledTokens() == (std::vector<int>{1, 1, 2}));
}

TEST(PrefixCache, "holds what an aborted request had computed of its prompt") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_batched_tokens = 8;
  SchedulerDriver driver(config);
  driver.scheduler.AddRequest(Twin(1, 20));
  driver.Step();
  driver.scheduler.AbortRequest(1);
  driver.scheduler.AddRequest(Twin(2, 20));
  driver.Step();
  EXPECT_EQ(driver.step.new_sequences.at(0).num_computed_tokens, 8);
}

TEST(PrefixCache, "forgets on reset what nobody uses") {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AddRequest(Twin(1, 10));
  driver.Drain();
  driver.scheduler.ResetPrefixCache();
  driver.scheduler.AddRequest(Twin(2, 10));
  driver.Step();
  EXPECT_EQ(driver.step.new_sequences.at(0).num_computed_tokens, 0);
}

// One row for each prompt token that the step predicts, named by the token's position.
LogprobsData PromptRows(int begin, int count, int prompt_len) {
  LogprobsData rows;
  rows.k = 1;
  for (int position = begin; position < std::min(begin + count, prompt_len - 1); ++position) {
    rows.token_ids.insert(rows.token_ids.end(), {position + 1, -1});
    rows.logprobs.insert(rows.logprobs.end(), {0, 0});
    rows.ranks.push_back(position + 1);
  }
  return rows;
}

TEST(PromptLogprobs, "arrive once and in order, although the prompt is computed twice") {
  SchedulerConfig config = RoomyConfig();
  config.max_num_batched_tokens = 8;
  config.num_blocks = 9;
  config.max_model_len = 32;
  SchedulerDriver driver(config);
  Request request = Twin(1, 20);
  request.sampling_params.prompt_logprobs = 1;
  driver.scheduler.AddRequest(request);

  LogprobsData arrived;
  int num_computed_rows = 0;
  const auto step = [&] {
    driver.Schedule();
    driver.edit = [&](SequenceOutput& output) {
      if (driver.Scheduled().at(0) != 1) return;
      const SchedulerOutput& scheduled = driver.step;
      const int begin = scheduled.new_sequences.empty() ? scheduled.cached_sequences.at(0).num_computed_tokens
                                                        : scheduled.new_sequences[0].num_computed_tokens;
      AppendLogprobs(output.prompt_logprobs, PromptRows(begin, scheduled.scheduled[0].num_scheduled_tokens, 20));
      num_computed_rows += output.prompt_logprobs->size();
    };
    for (const SequenceUpdate& update : driver.Update()) {
      if (update.prompt_logprobs != nullptr) arrived.Append(*update.prompt_logprobs);
    }
  };
  step();
  step();
  EXPECT_EQ(arrived.size(), 16);
  driver.scheduler.SetPaused(1, true);
  driver.scheduler.AddRequest(MakeRequest(2, 30, 1));
  for (int i = 0; i < 4; ++i) step();
  EXPECT_EQ(driver.scheduler.stats().num_preemptions, 1);
  driver.scheduler.SetPaused(1, false);
  while (driver.scheduler.HasRequests()) step();

  EXPECT_EQ(num_computed_rows, 16 + 19);
  EXPECT_EQ(arrived.size(), 19);
  for (int i = 0; i < 19; ++i) EXPECT_EQ(arrived.ranks[static_cast<size_t>(i)], i + 1);
  EXPECT_TRUE(arrived.token_ids == PromptRows(0, 20, 20).token_ids);
  EXPECT_EQ(arrived.logprobs.size(), 38u);
}

}  // namespace
}  // namespace heddle
