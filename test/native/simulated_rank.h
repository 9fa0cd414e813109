// A rank that knows only what SchedulerOutput tells it, and an oracle that generates every sequence alone: what the
// simulation of the scheduler runs against.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>

#include "scheduler/scheduler.h"

namespace heddle::test {

inline constexpr int kVocabSize = 24;
inline constexpr int32_t kEos = 0;
inline constexpr int32_t kStopId = 1;

// Throws, which ends the scenario, unless the claim holds.
inline void Require(bool condition, const char* claim) {
  if (!condition) throw std::runtime_error(claim);
}

inline uint64_t Mix(uint64_t state, uint64_t value) {
  state = (state ^ value) * 0x9e3779b97f4a7c15u;
  return state ^ (state >> 29);
}

inline uint64_t SaltContext(const std::string& salt) {
  uint64_t context = 11;
  for (const char c : salt) context = Mix(context, static_cast<unsigned char>(c));
  return context;
}

// What the model does after a context: nothing valid, seldom, or the next token.
inline std::optional<int32_t> NextToken(uint64_t context, int sequence_index) {
  const uint64_t drawn = Mix(Mix(context, 5), static_cast<uint64_t>(sequence_index)) >> 16;
  if (drawn % 251 == 0) return std::nullopt;
  return static_cast<int32_t>(drawn / 251 % kVocabSize);
}

// What became of a sequence.
struct Outcome {
  std::vector<int32_t> token_ids;
  FinishReason reason = FinishReason::kNone;
};

// One request's life: what is asked of the scheduler and what must come of it.
struct Plan {
  Request request;
  int arrival_step = 0;
  int abort_step = -1;          // -1: never
  std::vector<int> stop_after;  // a stop string completes with this token, for each sequence; 0: none does
  std::vector<Outcome> expected;

  std::vector<Outcome> outcomes;
  std::vector<SequenceId> ids;
  int num_ended = 0;
  LogprobsData prompt_logprobs;
  bool added = false;
  bool started = false;
  bool paused = false;
  bool aborted = false;

  int n() const { return request.sampling_params.n; }
  bool live() const { return added && !aborted && num_ended < n(); }
};

// What a sequence must give, whatever runs beside it.
inline Outcome Expect(const Plan& plan, int index, int max_model_len) {
  const SamplingParams& params = plan.request.sampling_params;
  uint64_t context = SaltContext(plan.request.cache_salt);
  for (const int32_t token : plan.request.prompt_token_ids) context = Mix(context, static_cast<uint64_t>(token));
  Outcome outcome;
  while (true) {
    const std::optional<int32_t> token = NextToken(context, index);
    if (!token) {
      outcome.reason = FinishReason::kError;
      return outcome;
    }
    context = Mix(context, static_cast<uint64_t>(*token));
    outcome.token_ids.push_back(*token);
    const int count = static_cast<int>(outcome.token_ids.size());
    const int length = static_cast<int>(plan.request.prompt_token_ids.size()) + count;
    const bool is_stop = *token == kStopId || (*token == kEos && !params.ignore_eos);
    if (is_stop && count >= params.min_tokens) {
      outcome.reason = FinishReason::kStop;
    } else if (count >= params.max_tokens || length >= max_model_len) {
      outcome.reason = FinishReason::kLength;
    } else if (count == plan.stop_after[static_cast<size_t>(index)]) {
      outcome.reason = FinishReason::kStop;
    }
    if (outcome.reason != FinishReason::kNone) return outcome;
  }
}

// "Computes" a token by writing a hash of the salt and all tokens up to it into the token's slot, as keys and values
// depend on all of these. Before and after every step it compares the slots of each scheduled sequence with its tokens,
// so sharing or reusing a wrong block, or one too early, is seen at once.
class SimulatedRank {
 public:
  SimulatedRank(const SchedulerConfig& config, const std::map<RequestId, Plan>& plans)
      : config_(config), plans_(plans), slots_(static_cast<size_t>(config.num_blocks * config.block_size)) {}

  size_t num_known() const { return sequences_.size(); }
  RequestId RequestOf(SequenceId id) const { return sequences_.at(id).plan->request.id; }
  int IndexOf(SequenceId id) const { return sequences_.at(id).index; }

  // Takes the differences in; Compute follows.
  void Apply(const SchedulerOutput& step) {
    for (const SequenceId id : step.finished) Require(sequences_.erase(id) == 1, "only known sequences finish");
    for (const NewSequenceData& data : step.new_sequences) {
      const Plan& plan = plans_.at(data.request_id);
      Require(data.prompt_len == static_cast<int>(plan.request.prompt_token_ids.size()),
              "the prompt's length is right");
      State state{.plan = &plan,
                  .index = data.sequence_index,
                  .contexts = {SaltContext(plan.request.cache_salt)},
                  .token_ids = {},
                  .block_ids = data.block_ids,
                  .num_computed = 0};
      Append(data.token_ids, state);
      state.num_computed = data.num_computed_tokens;
      Require(sequences_.emplace(data.id, state).second, "a new sequence is unknown");
    }
    int num_tokens = 0;
    int num_blocks = 0;
    for (const CachedSequenceData& data : step.cached_sequences) {
      Require(sequences_.count(data.id) == 1, "a cached sequence is known");
      State& state = sequences_.at(data.id);
      const auto token = step.new_token_ids.begin() + num_tokens;
      Append({token, token + data.num_new_tokens}, state);
      const auto block = step.new_block_ids.begin() + num_blocks;
      state.block_ids.insert(state.block_ids.end(), block, block + data.num_new_blocks);
      num_tokens += data.num_new_tokens;
      num_blocks += data.num_new_blocks;
      Require(state.num_computed == data.num_computed_tokens, "computed tokens stay computed");
    }
    size_t place = 0;
    for (const CachedSequenceData& data : step.cached_sequences) {
      Require(step.scheduled.at(place++).id == data.id, "cached sequences come first, in their order");
    }
    for (const NewSequenceData& data : step.new_sequences) {
      Require(step.scheduled.at(place++).id == data.id, "new sequences come next, in their order");
    }
    Require(num_tokens == static_cast<int>(step.new_token_ids.size()), "each new token is of a sequence");
    Require(num_blocks == static_cast<int>(step.new_block_ids.size()), "each new block is of a sequence");
  }

  ModelOutput Compute(const SchedulerOutput& step) {
    CheckOwners();
    for (const ScheduledSequence& scheduled : step.scheduled) {
      const State& state = sequences_.at(scheduled.id);
      Require(scheduled.num_scheduled_tokens > 0, "a scheduled sequence computes something");
      CheckContent(state, state.num_computed);
    }
    std::set<size_t> written;
    for (const ScheduledSequence& scheduled : step.scheduled) Write(scheduled, written);
    ModelOutput output;
    for (const ScheduledSequence& scheduled : step.scheduled) {
      State& state = sequences_.at(scheduled.id);
      CheckContent(state, state.num_computed);
      output.sequences.push_back(Answer(scheduled, state));
    }
    return output;
  }

 private:
  struct State {
    const Plan* plan;
    int index;
    std::vector<uint64_t> contexts;  // [1 + tokens]: before the first token, then after each
    std::vector<int32_t> token_ids;
    std::vector<int32_t> block_ids;
    int num_computed;
    std::optional<int32_t> sampled = std::nullopt;  // by its last step
    int num_untold = 0;                             // of token_ids, at the end: sampled here and not told yet
  };

  static void Append(const std::vector<int32_t>& token_ids, State& state) {
    for (const int32_t token : token_ids) {
      if (state.num_untold > 0) {
        Require(token == *(state.token_ids.end() - state.num_untold--), "ranks are told what they sampled");
        continue;
      }
      state.contexts.push_back(Mix(state.contexts.back(), static_cast<uint64_t>(token)));
      state.token_ids.push_back(token);
    }
  }

  // The step before has sampled the token after the last one.
  static void AppendPending(State& state) {
    Require(state.sampled.has_value() && state.num_untold == 0, "at most one token is pending");
    Require(!state.plan->request.sampling_params.depends_on_history(), "who looks back knows all tokens");
    Append({*state.sampled}, state);
    state.num_untold = 1;
  }

  size_t SlotOf(const State& state, int position) const {
    const size_t index = static_cast<size_t>(position / config_.block_size);
    Require(index < state.block_ids.size(), "every computed token has a block");
    const int32_t block = state.block_ids[index];
    Require(block > 0 && block < config_.num_blocks, "blocks lie in the pool and are not the null block");
    return static_cast<size_t>(block * config_.block_size + position % config_.block_size);
  }

  void CheckContent(const State& state, int count) const {
    for (int position = 0; position < count; ++position) {
      Require(slots_[SlotOf(state, position)] == state.contexts[static_cast<size_t>(position) + 1],
              "blocks hold the sequence's own tokens");
    }
  }

  // A block in two tables stands at the same place in both and is full and computed in both.
  void CheckOwners() const {
    std::map<int32_t, std::pair<const State*, size_t>> owners;
    for (const auto& [id, state] : sequences_) {
      for (size_t i = 0; i < state.block_ids.size(); ++i) {
        const auto [it, first] = owners.try_emplace(state.block_ids[i], &state, i);
        if (first) continue;
        const int full = static_cast<int>(i + 1) * config_.block_size;
        const auto& [other, place] = it->second;
        Require(place == i && state.num_computed >= full && other->num_computed >= full &&
                    state.contexts[static_cast<size_t>(full)] == other->contexts[static_cast<size_t>(full)],
                "only equal, full, computed prefixes are shared");
      }
    }
  }

  void Write(const ScheduledSequence& scheduled, std::set<size_t>& written) {
    State& state = sequences_.at(scheduled.id);
    for (int i = 0; i < scheduled.num_scheduled_tokens; ++i) {
      if (state.num_computed == static_cast<int>(state.token_ids.size())) AppendPending(state);
      const size_t slot = SlotOf(state, state.num_computed);
      Require(written.insert(slot).second, "no slot is written twice in a step");
      slots_[slot] = state.contexts.at(static_cast<size_t>(++state.num_computed));
    }
  }

  static SequenceOutput Answer(const ScheduledSequence& scheduled, State& state) {
    SequenceOutput output;
    output.id = scheduled.id;
    const int num_tokens = static_cast<int>(state.token_ids.size());
    Require(scheduled.samples == (state.num_computed == num_tokens), "a step samples when it reaches the last token");
    if (scheduled.samples) {
      const std::optional<int32_t> token = NextToken(state.contexts.back(), state.index);
      if (!token) output.failure = SequenceFailure::kInvalidLogits;
      output.sampled = token.has_value();
      output.token_id = token.value_or(0);
      state.sampled = output.token_id;
    }
    if (state.plan->request.sampling_params.prompt_logprobs >= 0 && state.index == 0) {
      const int prompt_len = static_cast<int>(state.plan->request.prompt_token_ids.size());
      const int begin = state.num_computed - scheduled.num_scheduled_tokens;
      for (int position = begin; position < std::min(state.num_computed, prompt_len - 1); ++position) {
        AppendLogprobs(output.prompt_logprobs, {.token_ids = {state.token_ids[static_cast<size_t>(position) + 1]},
                                                .logprobs = {0},
                                                .ranks = {position + 1}});
      }
    }
    return output;
  }

  const SchedulerConfig config_;
  const std::map<RequestId, Plan>& plans_;
  std::vector<uint64_t> slots_;
  std::map<SequenceId, State> sequences_;
};

}  // namespace heddle::test
