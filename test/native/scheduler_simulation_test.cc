// The scheduler in thousands of random scenarios: arrivals, aborts, pauses, priorities, forks, salts, tiny pools.
#include <deque>
#include <random>

#include "simulated_rank.h"
#include "test.h"

namespace heddle {
namespace {

using test::Expect;
using test::kEos;
using test::kStopId;
using test::kVocabSize;
using test::Outcome;
using test::Plan;
using test::Require;
using test::SimulatedRank;

constexpr int kNumScenarios = 2000;

// What the scenarios went through, all together.
struct Coverage {
  int64_t num_steps = 0;
  int64_t num_steps_ahead = 0;
  int64_t num_preemptions = 0;
  int64_t num_hit_tokens = 0;
  int64_t num_forks = 0;
  int64_t num_refused = 0;
  int64_t num_aborted_in_flight = 0;
  int64_t num_errors = 0;
  int64_t most_preemptions_of_one = 0;
};

class Scenario {
 public:
  Scenario(uint64_t seed, Coverage& coverage) : random_(seed), coverage_(coverage) {
    ChooseConfig();
    const int num_requests = Pick(1, 14);
    const int horizon = Pick(1, 40);
    for (int id = 1; id <= num_requests; ++id) ChoosePlan(static_cast<RequestId>(id), horizon);
    scheduler_.emplace(config_);
    rank_.emplace(config_, plans_);
  }

  void Run() {
    for (step_number_ = 0; !Over() || !under_way_.empty(); ++step_number_) {
      Require(step_number_ < 5000, "every request ends");
      DisturbBetweenSteps();
      if (under_way_.empty()) Submit();
      if (runs_ahead_ && !under_way_.empty() && scheduler_->MayScheduleAhead() && Chance(90)) Submit();
      if (under_way_.empty()) continue;
      DisturbInFlight();
      TakeIn(scheduler_->Update(under_way_.front().step, std::move(under_way_.front().output)));
      under_way_.pop_front();
      scheduler_->CheckConsistency();
    }
    CheckEnd();
  }

 private:
  struct StepUnderWay {
    SchedulerOutput step;
    ModelOutput output;
  };

  // A device computes steps in the order in which it gets them; when the host takes them in does not matter to it.
  void Submit() {
    const SchedulerOutput step = scheduler_->Schedule();
    scheduler_->CheckConsistency();
    Check(step);
    if (step.empty()) return;
    ++coverage_.num_steps;
    if (!under_way_.empty()) ++coverage_.num_steps_ahead;
    rank_->Apply(step);
    CheckPlaces(step);
    under_way_.push_back({step, rank_->Compute(step)});
  }

  int Pick(int low, int high) { return low + static_cast<int>(random_() % static_cast<uint64_t>(high - low + 1)); }
  bool Chance(int percent) { return Pick(1, 100) <= percent; }

  void ChooseConfig() {
    config_.max_num_seqs = Pick(1, 8);
    config_.max_num_batched_tokens = Chance(30) ? Pick(1, 4) : Pick(4, 40);
    config_.max_num_waiting = Chance(20) ? Pick(1, 3) : 100;
    config_.max_model_len = Pick(4, 48);
    config_.block_size = Pick(1, 8);
    const int fitting = (config_.max_model_len + config_.block_size - 1) / config_.block_size;
    config_.num_blocks = 1 + fitting + (Chance(50) ? 0 : Pick(0, 3 * fitting));
    config_.enable_prefix_caching = Chance(75);
    config_.policy = Chance(50) ? SchedulingPolicy::kFcfs : SchedulingPolicy::kPriority;
    pauses_ = Chance(40);
    forks_ = Chance(50);
    resets_ = Chance(10);
    runs_ahead_ = Chance(60);
  }

  void ChoosePlan(RequestId id, int horizon) {
    Plan plan;
    plan.request.id = id;
    // Prompts begin like one of two texts, so that they share prefixes of many lengths.
    const int text = Pick(0, 1);
    const int common = Pick(0, config_.max_model_len);
    const int prompt_len = Pick(1, config_.max_model_len - 1);
    for (int i = 0; i < prompt_len; ++i) {
      plan.request.prompt_token_ids.push_back(i < common ? (i * 7 + text) % kVocabSize : Pick(0, kVocabSize - 1));
    }
    plan.request.eos_token_ids = {kEos};
    plan.request.priority = Pick(-1, 1);
    plan.request.cache_salt = Chance(70) ? "" : (Chance(50) ? "red" : "blue");
    SamplingParams& params = plan.request.sampling_params;
    params.n = forks_ ? Pick(1, 4) : 1;
    params.stop_token_ids = {kStopId};
    params.max_tokens = Pick(1, config_.max_model_len);
    params.min_tokens = Chance(50) ? 0 : Pick(0, params.max_tokens);
    params.ignore_eos = Chance(50);
    params.prompt_logprobs = Chance(20) ? 0 : -1;
    params.skip_reading_prefix_cache = Chance(15);
    params.repetition_penalty = Chance(5) ? 2.0f : 1.0f;
    plan.arrival_step = Pick(0, horizon);
    if (Chance(20)) plan.abort_step = plan.arrival_step + Pick(0, 30);
    for (int index = 0; index < params.n; ++index) plan.stop_after.push_back(Chance(20) ? Pick(1, 10) : 0);
    for (int index = 0; index < params.n; ++index) plan.expected.push_back(Expect(plan, index, config_.max_model_len));
    plan.outcomes.resize(plan.expected.size());
    plan.ids.resize(plan.expected.size());
    plans_.emplace(id, std::move(plan));
  }

  bool Over() const {
    return std::all_of(plans_.begin(), plans_.end(), [](const auto& entry) {
      return entry.second.aborted || entry.second.num_ended == entry.second.n();
    });
  }

  void DisturbBetweenSteps() {
    for (auto& [id, plan] : plans_) {
      if (!plan.added && plan.arrival_step <= step_number_) Add(plan);
      if (plan.live() && plan.abort_step >= 0 && plan.abort_step <= step_number_ && Chance(50)) Abort(plan);
      DisturbPause(plan);
    }
    if (resets_ && Chance(10)) scheduler_->ResetPrefixCache();
  }

  void DisturbInFlight() {
    for (auto& [id, plan] : plans_) {
      if (plan.live() && plan.abort_step >= 0 && plan.abort_step <= step_number_) {
        Abort(plan);
        ++coverage_.num_aborted_in_flight;
      }
      DisturbPause(plan);
    }
  }

  // Nothing stays paused for ever.
  void DisturbPause(Plan& plan) {
    if (!pauses_ || !plan.live()) return;
    if (plan.paused ? Chance(20) : (step_number_ < 400 && Chance(5))) {
      plan.paused = !plan.paused;
      scheduler_->SetPaused(plan.request.id, plan.paused);
    }
  }

  void Add(Plan& plan) {
    const int num_unstarted = static_cast<int>(std::count_if(
        plans_.begin(), plans_.end(), [](const auto& entry) { return entry.second.live() && !entry.second.started; }));
    try {
      scheduler_->AddRequest(plan.request);
      plan.added = true;
      arrivals_.push_back(plan.request.id);
    } catch (const Error& error) {
      Require(error.code() == ErrorCode::kQueueFull, "only a full queue refuses");
      ++coverage_.num_refused;
    }
    Require(plan.added == (num_unstarted < config_.max_num_waiting), "the queue is bounded by requests never run");
  }

  void Abort(Plan& plan) {
    scheduler_->AbortRequest(plan.request.id);
    plan.aborted = true;
  }

  void Check(const SchedulerOutput& step) {
    int total = 0;
    for (const ScheduledSequence& scheduled : step.scheduled) total += scheduled.num_scheduled_tokens;
    Require(total == step.total_num_scheduled_tokens, "the total is the sum");
    Require(total <= config_.max_num_batched_tokens, "the budget is kept");
    Require(static_cast<int>(step.scheduled.size()) <= config_.max_num_seqs, "max_num_seqs is kept");
    Require(step.scheduled.size() == step.new_sequences.size() + step.cached_sequences.size(),
            "every scheduled sequence is described once");
    const bool can_run = std::any_of(plans_.begin(), plans_.end(),
                                     [](const auto& entry) { return entry.second.live() && !entry.second.paused; });
    if (under_way_.empty()) Require(step.empty() == !can_run, "a step is empty exactly when nobody could run");
    if (step.empty()) Require(step.finished.empty(), "an empty step reports nothing");
  }

  void CheckPlaces(const SchedulerOutput& step) {
    for (const NewSequenceData& data : step.new_sequences) {
      Plan& plan = plans_.at(data.request_id);
      plan.started = true;
      SequenceId& id = plan.ids.at(static_cast<size_t>(data.sequence_index));
      Require(id == 0 || id == data.id, "a sequence keeps its id");
      id = data.id;
      if (data.sequence_index > 0) ++coverage_.num_forks;
      most_admissions_ = std::max(most_admissions_, ++num_admissions_[data.id]);
    }
    Require(rank_->num_known() == static_cast<size_t>(scheduler_->stats().num_running), "ranks know who runs");
    std::set<RequestId> scheduled;
    for (const ScheduledSequence& sequence : step.scheduled) {
      const Plan& plan = plans_.at(rank_->RequestOf(sequence.id));
      Require(plan.live(), "what has ended is not scheduled");
      Require(!plan.paused, "what is paused is not scheduled");
      scheduled.insert(plan.request.id);
    }
    if (!under_way_.empty() || pauses_ || forks_ || config_.policy != SchedulingPolicy::kFcfs) return;
    Require(scheduled.count(Oldest()) == 1, "the oldest progresses in every step");
  }

  RequestId Oldest() const {
    return *std::find_if(arrivals_.begin(), arrivals_.end(), [&](RequestId id) { return plans_.at(id).live(); });
  }

  void TakeIn(const std::vector<SequenceUpdate>& updates) {
    for (const SequenceUpdate& update : updates) {
      Plan& plan = plans_.at(update.request_id);
      Require(plan.live(), "what has ended gets no update");
      const size_t index = static_cast<size_t>(update.sequence_index);
      Require(plan.ids.at(index) == update.sequence_id, "an update names its sequence");
      Outcome& outcome = plan.outcomes[index];
      Require(outcome.reason == FinishReason::kNone, "a sequence ends once");
      if (update.sampled) outcome.token_ids.push_back(update.token_id);
      Require(update.num_generated_tokens == static_cast<int>(outcome.token_ids.size()), "tokens are counted");
      outcome.reason = update.finish_reason;
      if (update.prompt_logprobs != nullptr) plan.prompt_logprobs.Append(*update.prompt_logprobs);
      const bool stop_string = update.sampled && update.num_generated_tokens == plan.stop_after[index];
      if (stop_string && outcome.reason == FinishReason::kNone) {
        scheduler_->FinishSequence(update.sequence_id);
        outcome.reason = FinishReason::kStop;
      }
      if (outcome.reason != FinishReason::kNone) ++plan.num_ended;
      if (outcome.reason == FinishReason::kError) ++coverage_.num_errors;
    }
  }

  void CheckEnd() {
    const SchedulerStats stats = scheduler_->stats();
    Require(!scheduler_->HasRequests() && stats.num_running == 0 && stats.num_waiting == 0, "nobody is left");
    Require(stats.num_free_blocks == stats.num_total_blocks, "every block is free");
    for (const auto& [id, plan] : plans_) {
      for (size_t index = 0; index < plan.expected.size(); ++index) CheckOutcome(plan, index);
      CheckPromptLogprobs(plan);
    }
    coverage_.num_preemptions += stats.num_preemptions;
    coverage_.num_hit_tokens += stats.prefix_cache_hits;
    if (!pauses_) {
      coverage_.most_preemptions_of_one = std::max<int64_t>(coverage_.most_preemptions_of_one, most_admissions_ - 1);
    }
  }

  static void CheckOutcome(const Plan& plan, size_t index) {
    const Outcome& outcome = plan.outcomes[index];
    const Outcome& expected = plan.expected[index];
    if (outcome.reason != FinishReason::kNone) {
      Require(outcome.token_ids == expected.token_ids, "a sequence gets the oracle's tokens");
      Require(outcome.reason == expected.reason, "a sequence ends for the oracle's reason");
      return;
    }
    Require(plan.aborted, "only aborts leave a sequence without an end");
    Require(outcome.token_ids.size() <= expected.token_ids.size() &&
                std::equal(outcome.token_ids.begin(), outcome.token_ids.end(), expected.token_ids.begin()),
            "an aborted sequence has a part of the oracle's tokens");
  }

  static void CheckPromptLogprobs(const Plan& plan) {
    const int num_rows = plan.prompt_logprobs.size();
    for (int row = 0; row < num_rows; ++row) {
      Require(plan.prompt_logprobs.ranks[static_cast<size_t>(row)] == row + 1 &&
                  plan.prompt_logprobs.token_ids[static_cast<size_t>(row)] ==
                      plan.request.prompt_token_ids.at(static_cast<size_t>(row) + 1),
              "prompt log-probabilities come once and in order");
    }
    const bool owed = plan.request.sampling_params.prompt_logprobs >= 0 && !plan.aborted;
    Require(!owed || num_rows == static_cast<int>(plan.request.prompt_token_ids.size()) - 1,
            "prompt log-probabilities are complete");
  }

  std::mt19937_64 random_;
  Coverage& coverage_;
  SchedulerConfig config_;
  bool pauses_ = false;
  bool forks_ = false;
  bool resets_ = false;
  bool runs_ahead_ = false;
  std::map<RequestId, Plan> plans_;
  std::optional<Scheduler> scheduler_;
  std::optional<SimulatedRank> rank_;
  std::deque<StepUnderWay> under_way_;
  std::vector<RequestId> arrivals_;
  std::map<SequenceId, int> num_admissions_;
  int most_admissions_ = 0;
  int step_number_ = 0;
};

TEST(SchedulerSimulation, "random scenarios end with the oracle's tokens, with every block sound and given back") {
  Coverage coverage;
  for (uint64_t seed = 1; seed <= kNumScenarios; ++seed) {
    try {
      Scenario(seed, coverage).Run();
    } catch (const std::exception& error) {
      test::Fail(__FILE__, __LINE__, "scenario " + std::to_string(seed) + ": " + error.what());
      return;
    }
  }
  // The scenarios went where they should.
  EXPECT_TRUE(coverage.num_steps_ahead > 10 * kNumScenarios);
  EXPECT_TRUE(coverage.num_preemptions > kNumScenarios);
  EXPECT_TRUE(coverage.num_hit_tokens > kNumScenarios);
  EXPECT_TRUE(coverage.num_forks > kNumScenarios);
  EXPECT_TRUE(coverage.num_refused > kNumScenarios);
  EXPECT_TRUE(coverage.num_aborted_in_flight > kNumScenarios / 10);
  EXPECT_TRUE(coverage.num_errors > kNumScenarios / 10);
  // Without pauses, nobody starts over again and again.
  EXPECT_TRUE(coverage.most_preemptions_of_one <= 16);
}

}  // namespace
}  // namespace heddle
