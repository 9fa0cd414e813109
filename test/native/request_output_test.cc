// When a request's output is due, and what text and ids it has.
#include "engine/request_output.h"

#include "test.h"

namespace heddle {
namespace {

// Tokens 0 .. 4 are "a" .. "e"; 5 is the special "<end>", which ends sequences.
constexpr int32_t kEnd = 5;

std::shared_ptr<const Vocabulary> Letters() {
  return std::make_shared<Vocabulary>("abcde<end>", std::vector<uint32_t>{0, 1, 2, 3, 4, 5, 10},
                                      std::vector<uint8_t>{0, 0, 0, 0, 0, 1});
}

SequenceDelta Only(std::vector<SequenceDelta> deltas) {
  EXPECT_EQ(deltas.size(), 1u);
  return std::move(deltas.at(0));
}

class Fixture {
 public:
  explicit Fixture(const SamplingParams& params) : output_(RequestWith(params), Letters()) {}

  // One token; the deltas that are due then.
  std::vector<SequenceDelta> Put(int32_t token, FinishReason reason = FinishReason::kNone, int index = 0) {
    SequenceUpdate update = Next(token, index);
    update.finish_reason = reason;
    return Take(std::move(update));
  }

  // A token that ends the sequence by itself: an end of sequence, or a listed id.
  SequenceDelta Stop(int32_t token, bool by_eos) {
    SequenceUpdate update = Next(token, 0);
    update.finish_reason = FinishReason::kStop;
    update.stop_token_id = token;
    update.stopped_by_eos = by_eos;
    return Only(Take(std::move(update)));
  }

  std::vector<SequenceDelta> Abort() {
    output_.Abort();
    return Due();
  }

  std::vector<SequenceDelta> Fail() {
    output_.Fail({ErrorCode::kRequestFailed, "why"});
    return Due();
  }

  bool done() const { return output_.done(); }
  bool ended_by_text() const { return ended_by_text_; }
  // Of the deltas given last.
  const std::vector<int32_t>& token_ids() const { return token_ids_; }

 private:
  static Request RequestWith(const SamplingParams& params) {
    Request request;
    request.id = 7;
    request.sampling_params = params;
    return request;
  }

  SequenceUpdate Next(int32_t token, int index) {
    SequenceUpdate update;
    update.sequence_index = index;
    update.sampled = true;
    update.token_id = token;
    update.logprob = -0.5f;
    update.num_generated_tokens = ++num_generated_[index];
    update.num_cached_tokens = 3;
    return update;
  }

  std::vector<SequenceDelta> Take(SequenceUpdate update) {
    ended_by_text_ = output_.Put(std::move(update));
    return Due();
  }

  std::vector<SequenceDelta> Due() {
    EngineOutput output;
    output_.TakeDue(output);
    int num_tokens = 0;
    for (const SequenceDelta& delta : output.deltas) num_tokens += delta.num_tokens;
    EXPECT_EQ(output.token_ids.size(), static_cast<size_t>(num_tokens));
    token_ids_ = std::move(output.token_ids);
    return std::move(output.deltas);
  }

  RequestOutput output_;
  int num_generated_[2] = {};
  bool ended_by_text_ = false;
  std::vector<int32_t> token_ids_;
};

TEST(RequestOutput, "gives the first token at once, then as many as stream_interval says, and the rest at the end") {
  SamplingParams params;
  params.stream_interval = 3;
  Fixture fixture(params);
  std::vector<int> sizes;
  std::string text;
  for (int i = 0; i < 6; ++i) {
    for (const SequenceDelta& delta : fixture.Put(i % 5, i == 5 ? FinishReason::kLength : FinishReason::kNone)) {
      sizes.push_back(delta.num_tokens);
      text += delta.text;
      EXPECT_NEAR(delta.logprob, -0.5 * delta.num_tokens, 1e-9);
    }
  }
  EXPECT_TRUE(sizes == (std::vector<int>{1, 3, 2}));
  EXPECT_EQ(text, "abcdea");
  EXPECT_TRUE(fixture.done());
}

TEST(RequestOutput, "gives each delta's tokens after those of the delta before") {
  SamplingParams params;
  params.n = 2;
  params.stream_interval = 3;
  params.stop = {"zz"};
  Fixture fixture(params);
  fixture.Put(0);
  EXPECT_TRUE((fixture.token_ids() == std::vector<int32_t>{0}));
  fixture.Put(3, FinishReason::kNone, 1);
  EXPECT_TRUE((fixture.token_ids() == std::vector<int32_t>{3}));
  for (const int32_t token : {1, 2}) fixture.Put(token);
  fixture.Put(4, FinishReason::kNone, 1);
  EXPECT_TRUE(fixture.token_ids().empty());
  const std::vector<SequenceDelta> deltas = fixture.Abort();
  EXPECT_EQ(deltas.size(), 2u);
  EXPECT_TRUE(deltas[0].index == 0 && deltas[0].num_tokens == 2);
  EXPECT_TRUE(deltas[1].index == 1 && deltas[1].num_tokens == 1);
  EXPECT_TRUE((fixture.token_ids() == std::vector<int32_t>{1, 2, 4}));
}

TEST(RequestOutput, "gives one delta at the end when final_only, for each sequence when it ends") {
  SamplingParams params;
  params.n = 2;
  params.final_only = true;
  Fixture fixture(params);
  EXPECT_TRUE(fixture.Put(0).empty());
  EXPECT_TRUE(fixture.Put(1, FinishReason::kNone, 1).empty());
  const SequenceDelta first = Only(fixture.Put(1, FinishReason::kLength));
  EXPECT_EQ(first.text, "ab");
  EXPECT_TRUE(first.num_cached_tokens == 3);
  EXPECT_TRUE(!fixture.done());
  const SequenceDelta second = Only(fixture.Put(2, FinishReason::kLength, 1));
  EXPECT_EQ(second.index, 1);
  EXPECT_EQ(second.text, "bc");
  EXPECT_TRUE(!second.num_cached_tokens);
  EXPECT_TRUE(fixture.done());
}

TEST(RequestOutput, "keeps the token that ended a sequence out of its text, not out of its ids, unless asked for") {
  for (const bool by_eos : {true, false}) {
    for (const bool included : {true, false}) {
      SamplingParams params;
      params.include_stop_str_in_output = included;
      params.skip_special_tokens = false;
      Fixture fixture(params);
      fixture.Put(0);
      const SequenceDelta last = fixture.Stop(by_eos ? kEnd : 3, by_eos);
      EXPECT_EQ(last.text, !included ? "" : by_eos ? "<end>" : "d");
      EXPECT_EQ(last.num_tokens, 1);
      EXPECT_TRUE(last.finish_reason == FinishReason::kStop);
      EXPECT_TRUE(last.end->stop_token_id == (by_eos ? std::nullopt : std::optional<int32_t>(3)));
    }
  }
}

TEST(RequestOutput, "ends a sequence where its text completes a stop string, and says that the scheduler must") {
  SamplingParams params;
  params.stop = {"x", "bc"};
  Fixture fixture(params);
  EXPECT_EQ(fixture.Put(0).at(0).text, "a");
  EXPECT_EQ(fixture.Put(1).at(0).text, "");
  const SequenceDelta last = Only(fixture.Put(2));
  EXPECT_TRUE(fixture.ended_by_text() && fixture.done());
  EXPECT_EQ(last.text, "");
  EXPECT_TRUE(last.end->stop_string == "bc");
  EXPECT_TRUE(last.finish_reason == FinishReason::kStop);
}

TEST(RequestOutput, "passes over stop strings in the first min_tokens tokens") {
  SamplingParams params;
  params.stop = {"b"};
  params.min_tokens = 2;
  Fixture fixture(params);
  std::string text;
  for (const int32_t token : {0, 1, 2}) text += fixture.Put(token).at(0).text;
  EXPECT_EQ(text, "abc");
  EXPECT_TRUE(fixture.Put(1).at(0).end->stop_string == "b");
}

TEST(RequestOutput, "gives held-back text when aborted, and the scheduler's reason when a stop string comes last") {
  SamplingParams params;
  params.stop = {"bc"};
  Fixture aborted(params);
  aborted.Put(1);
  const SequenceDelta last = Only(aborted.Abort());
  EXPECT_EQ(last.text, "b");
  EXPECT_TRUE(last.finish_reason == FinishReason::kAbort && aborted.done());

  Fixture both(params);
  both.Put(1);
  EXPECT_TRUE(both.Put(2, FinishReason::kLength).at(0).finish_reason == FinishReason::kStop);
  EXPECT_TRUE(!both.ended_by_text());
}

TEST(RequestOutput, "ends what is open with its error when it fails, and leaves what had ended") {
  SamplingParams params;
  params.n = 2;
  params.stop = {"bc"};
  Fixture fixture(params);
  EXPECT_TRUE(!fixture.Put(0, FinishReason::kLength).at(0).end->error);
  fixture.Put(1, FinishReason::kNone, 1);
  const std::vector<SequenceDelta> deltas = fixture.Fail();
  EXPECT_EQ(deltas.size(), 1u);
  EXPECT_EQ(deltas[0].index, 1);
  EXPECT_TRUE(deltas[0].finish_reason == FinishReason::kError);
  EXPECT_TRUE(deltas[0].end->error && deltas[0].end->error->message == "why");
  EXPECT_TRUE(fixture.done());
}

}  // namespace
}  // namespace heddle
