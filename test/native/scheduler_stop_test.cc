// When a sequence ends.
#include "scheduler_testing.h"
#include "test.h"

namespace heddle {
namespace {

using test::MakeRequest;
using test::RoomyConfig;
using test::SchedulerDriver;

constexpr int32_t kEos = 2;
constexpr int32_t kStopId = 3;

Request Stoppable(int max_tokens) {
  Request request = MakeRequest(1, 4, max_tokens);
  request.eos_token_ids = {kEos};
  request.sampling_params.stop_token_ids = {kStopId};
  return request;
}

// Feeds the tokens to the request, one a step, and returns the last update.
SequenceUpdate Feed(const Request& request, const std::vector<int32_t>& tokens) {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AddRequest(request);
  for (const int32_t token : tokens) {
    EXPECT_TRUE(driver.scheduler.HasRequests());
    driver.token = [token](SequenceId) { return token; };
    driver.Step();
  }
  EXPECT_EQ(driver.scheduler.HasRequests(), driver.updates.at(0).finish_reason == FinishReason::kNone);
  EXPECT_EQ(driver.updates[0].num_generated_tokens, static_cast<int>(tokens.size()));
  return std::move(driver.updates[0]);
}

TEST(Stopping, "stops at an end-of-sequence id") {
  const SequenceUpdate update = Feed(Stoppable(9), {7, kEos});
  EXPECT_TRUE(update.finish_reason == FinishReason::kStop);
  EXPECT_EQ(update.stop_token_id, kEos);
  EXPECT_TRUE(update.stopped_by_eos);
}

TEST(Stopping, "goes on past an end-of-sequence id with ignore_eos") {
  Request request = Stoppable(9);
  request.sampling_params.ignore_eos = true;
  EXPECT_TRUE(Feed(request, {7, kEos}).finish_reason == FinishReason::kNone);
}

TEST(Stopping, "stops at a listed id, also with ignore_eos") {
  Request request = Stoppable(9);
  request.sampling_params.ignore_eos = true;
  const SequenceUpdate update = Feed(request, {7, kStopId});
  EXPECT_TRUE(update.finish_reason == FinishReason::kStop);
  EXPECT_EQ(update.stop_token_id, kStopId);
  EXPECT_TRUE(!update.stopped_by_eos);
}

TEST(Stopping, "reports an end-of-sequence id that is also listed as listed") {
  Request request = Stoppable(9);
  request.sampling_params.stop_token_ids = {kEos};
  const SequenceUpdate update = Feed(request, {kEos});
  EXPECT_EQ(update.stop_token_id, kEos);
  EXPECT_TRUE(!update.stopped_by_eos);
}

TEST(Stopping, "heeds no stop before min_tokens") {
  Request request = Stoppable(9);
  request.sampling_params.min_tokens = 3;
  EXPECT_TRUE(Feed(request, {kEos, kStopId}).finish_reason == FinishReason::kNone);
  EXPECT_TRUE(Feed(request, {kEos, kStopId, kEos}).finish_reason == FinishReason::kStop);
}

TEST(Stopping, "ends at max_tokens and at max_model_len, also before min_tokens") {
  Request request = Stoppable(2);
  request.sampling_params.min_tokens = 5;
  EXPECT_TRUE(Feed(request, {7, 7}).finish_reason == FinishReason::kLength);
  request = MakeRequest(1, 62, 9);
  request.sampling_params.min_tokens = 5;
  EXPECT_TRUE(Feed(request, {7, 7}).finish_reason == FinishReason::kLength);
}

TEST(Stopping, "prefers a stop to the length, and the length to a repetition") {
  EXPECT_TRUE(Feed(Stoppable(2), {7, kEos}).finish_reason == FinishReason::kStop);
  Request request = Stoppable(4);
  request.sampling_params.repetition_detection = {1, 1, 4};
  const SequenceUpdate update = Feed(request, {7, 7, 7, 7});
  EXPECT_TRUE(update.finish_reason == FinishReason::kLength);
  EXPECT_TRUE(!update.stopped_by_repetition);
}

TEST(Stopping, "stops at a repetition in what was generated, from min_tokens on") {
  Request request = Stoppable(9);
  request.prompt_token_ids = {7, 7, 7, 7};
  request.sampling_params.repetition_detection = {1, 1, 3};
  EXPECT_TRUE(Feed(request, {7, 7}).finish_reason == FinishReason::kNone);
  const SequenceUpdate update = Feed(request, {7, 7, 7});
  EXPECT_TRUE(update.finish_reason == FinishReason::kStop);
  EXPECT_TRUE(update.stopped_by_repetition);
  EXPECT_EQ(update.stop_token_id, -1);
  request.sampling_params.min_tokens = 4;
  EXPECT_TRUE(Feed(request, {7, 7, 7}).finish_reason == FinishReason::kNone);
}

TEST(Stopping, "ends a sequence that the caller stops, and only that one") {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AddRequest(MakeRequest(1, 4, 9));
  driver.scheduler.AddRequest(MakeRequest(2, 4, 9));
  driver.Step();
  driver.scheduler.FinishSequence(driver.updates[0].sequence_id);
  driver.Step();
  EXPECT_TRUE(driver.Scheduled() == std::vector<RequestId>{2});
}

TEST(Stopping, "ends a sequence without valid logits by itself and caches nothing that it computed") {
  SchedulerDriver driver(RoomyConfig());
  driver.scheduler.AddRequest(MakeRequest(1, 9, 9));
  driver.scheduler.AddRequest(MakeRequest(2, 9, 9));
  driver.edit = [](SequenceOutput& output) {
    if (output.id != 1) return;
    output.failure = SequenceFailure::kInvalidLogits;
    output.sampled = false;
  };
  driver.Step();
  EXPECT_EQ(driver.updates.size(), 2u);
  EXPECT_TRUE(driver.updates[0].finish_reason == FinishReason::kError);
  EXPECT_TRUE(!driver.updates[0].sampled);
  EXPECT_TRUE(driver.updates[1].finish_reason == FinishReason::kNone);

  Request again = MakeRequest(1, 9, 9);
  again.id = 3;
  driver.scheduler.AddRequest(again);
  driver.Step();
  EXPECT_EQ(driver.step.new_sequences.at(0).num_computed_tokens, 0);
}

TEST(Stopping, "ends a sequence that may generate no token, but shares and caches what it computed") {
  SchedulerDriver driver(RoomyConfig());
  Request request = MakeRequest(1, 9, 9);
  request.sampling_params.n = 2;
  driver.scheduler.AddRequest(request);
  driver.edit = [](SequenceOutput& output) {
    output.failure = SequenceFailure::kNoTokenAllowed;
    output.sampled = false;
  };
  for (int index = 0; index < 2; ++index) {
    driver.Step();
    EXPECT_EQ(driver.step.new_sequences.at(0).num_computed_tokens, index * 8);
    EXPECT_TRUE(driver.updates.at(0).failure == SequenceFailure::kNoTokenAllowed);
    EXPECT_TRUE(driver.updates[0].finish_reason == FinishReason::kError);
  }
  EXPECT_TRUE(driver.EverythingFree());

  request.id = 3;
  driver.scheduler.AddRequest(request);
  driver.Schedule();
  EXPECT_EQ(driver.step.new_sequences.at(0).num_computed_tokens, 8);
}

}  // namespace
}  // namespace heddle
