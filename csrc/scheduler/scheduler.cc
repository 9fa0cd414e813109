#include "scheduler/scheduler.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"

namespace heddle {
namespace {

const SchedulerConfig& Checked(const SchedulerConfig& config) {
  HEDDLE_CHECK(config.max_num_seqs > 0 && config.max_num_batched_tokens > 0 && config.max_num_waiting > 0 &&
                   config.max_model_len > 0 && config.block_size > 0,
               "a limit is not positive");
  HEDDLE_CHECK(
      int64_t{config.num_blocks - 1} * config.block_size >= config.max_model_len,
      std::to_string(config.num_blocks) + " blocks do not hold " + std::to_string(config.max_model_len) + " tokens");
  return config;
}

// Appends values [begin, end) to `to`, and returns how many these are.
int AppendFrom(int begin, const std::vector<int32_t>& values, std::vector<int32_t>& to) {
  to.insert(to.end(), values.begin() + begin, values.end());
  return static_cast<int>(values.size()) - begin;
}

}  // namespace

Scheduler::Scheduler(const SchedulerConfig& config)
    : config_(Checked(config)), kv_cache_(config.num_blocks, config.block_size, config.enable_prefix_caching) {}

void Scheduler::AddRequest(Request request) {
  ValidateRequest(request, config_.max_model_len);
  if (num_queued_requests_ >= config_.max_num_waiting) {
    throw Error(ErrorCode::kQueueFull,
                "the queue is full: " + std::to_string(num_queued_requests_) + " requests wait already");
  }
  const RequestId id = request.id;
  HEDDLE_CHECK(requests_.count(id) == 0, "request " + std::to_string(id) + " exists");
  auto state = std::make_unique<RequestState>();
  state->request = std::move(request);
  state->prompt_len = static_cast<int>(state->request.prompt_token_ids.size());
  state->order.priority = config_.policy == SchedulingPolicy::kPriority ? state->request.priority : 0;
  state->order.arrival = ++last_arrival_;
  for (int index = 0; index < state->request.sampling_params.n; ++index) state->AddSequence(++last_sequence_id_);
  RequestState& added = *requests_.emplace(id, std::move(state)).first->second;
  ++num_queued_requests_;
  // Cannot fail while they await the prompt: so a failure from here on is undone as any request is ended.
  for (const auto& sequence : added.sequences) queue_.Insert(*sequence);
  try {
    for (const auto& sequence : added.sequences) sequences_.emplace(sequence->id, sequence.get());
    PromoteFork(added);
  } catch (...) {
    AbortRequest(id);
    throw;
  }
}

// Lets the first sequence that awaits the prompt compute it.
void Scheduler::PromoteFork(RequestState& request) {
  for (const auto& sequence : request.sequences) {
    if (sequence == nullptr) continue;
    HEDDLE_CHECK(sequence->status == SequenceStatus::kAwaitingPrompt, "two sequences compute one prompt");
    if (request.num_open_sequences == 1) {
      sequence->token_ids = std::move(request.request.prompt_token_ids);
    } else {
      sequence->token_ids = request.request.prompt_token_ids;
    }
    queue_.Remove(*sequence);
    sequence->status = SequenceStatus::kWaiting;
    queue_.Insert(*sequence);
    return;
  }
}

SchedulerOutput Scheduler::Schedule() {
  SchedulerOutput step;
  // Whoever found no block lets nobody in, unless it stepped back for someone who waits.
  if (ScheduleRunning(step) || step.empty()) AdmitWaiting(step);
  // Kept for the next step when this one will never reach the ranks.
  if (!step.empty()) {
    step.finished.swap(finished_);
    ++num_steps_under_way_;
  }
  return step;
}

bool Scheduler::MayScheduleAhead() const {
  const auto awaits_history = [](const Sequence* sequence) {
    return sequence->num_pending_tokens > 0 && sequence->request->request.sampling_params.depends_on_history();
  };
  const std::vector<Sequence*>& running = queue_.running();
  return num_steps_under_way_ <= 1 && std::none_of(running.begin(), running.end(), awaits_history);
}

// False when a sequence found no free block.
bool Scheduler::ScheduleRunning(SchedulerOutput& step) {
  const std::vector<Sequence*>& running = queue_.running();
  step.scheduled.reserve(running.size());
  step.cached_sequences.reserve(running.size());
  step.new_token_ids.reserve(running.size());
  bool enough_blocks = true;
  // Victims come after the sequence in need, so they were not scheduled in this step, and nothing before i moves.
  for (size_t i = 0; i < running.size(); ++i) {
    Sequence& sequence = *running[i];
    if (EndsUnderWay(sequence)) continue;
    // A long prompt leaves a token to each sequence after it, so that nobody's decoding halts meanwhile.
    const size_t num_places = static_cast<size_t>(config_.max_num_seqs) - step.scheduled.size();
    const int num_after = static_cast<int>(std::min(running.size() - i, num_places)) - 1;
    const int num_tokens = BudgetedTokens(sequence, step, num_after);
    if (num_tokens == 0) break;
    while (!kv_cache_.AllocateSlots(sequence.num_computed_tokens + num_tokens, sequence.blocks)) {
      enough_blocks = false;
      HEDDLE_CHECK(queue_.num_holders() > 1, "a sequence alone does not fit");
      Sequence* victim = queue_.LastHolder();
      Preempt(*victim);
      if (victim == &sequence) return false;
    }
    step.cached_sequences.push_back(
        {sequence.id, AppendFrom(sequence.num_sent_tokens, sequence.token_ids, step.new_token_ids),
         AppendFrom(sequence.num_sent_blocks, sequence.blocks.block_ids, step.new_block_ids),
         sequence.num_computed_tokens});
    AppendScheduled(sequence, num_tokens, step);
  }
  return enough_blocks;
}

// Whether its pending tokens end it, whatever they are. They may end it otherwise too, which shows too late: what a
// step then computes for it is dropped.
bool Scheduler::EndsUnderWay(const Sequence& sequence) const {
  return sequence.num_pending_tokens > 0 &&
         EndsByLength(sequence, sequence.num_tokens() - sequence.request->prompt_len, config_.max_model_len);
}

// Tokens that the sequence may compute in this step, leaving `num_reserved` of the budget as long as one remains for
// it; 0 when the step is full.
int Scheduler::BudgetedTokens(const Sequence& sequence, const SchedulerOutput& step, int num_reserved) const {
  const int budget = config_.max_num_batched_tokens - step.total_num_scheduled_tokens;
  if (budget == 0 || static_cast<int>(step.scheduled.size()) >= config_.max_num_seqs) return 0;
  return std::min(sequence.num_tokens() - sequence.num_computed_tokens, std::max(budget - num_reserved, 1));
}

void Scheduler::AppendScheduled(Sequence& sequence, int num_tokens, SchedulerOutput& step) {
  const bool samples = sequence.num_computed_tokens + num_tokens == sequence.num_tokens();
  step.scheduled.push_back({sequence.id, num_tokens, samples});
  step.total_num_scheduled_tokens += num_tokens;
  sequence.num_computed_tokens += num_tokens;
  ++sequence.num_steps_under_way;
  if (samples) ++sequence.num_pending_tokens;
  sequence.num_sent_tokens = static_cast<int>(sequence.token_ids.size());
  sequence.num_sent_blocks = sequence.blocks.size();
}

void Scheduler::AdmitWaiting(SchedulerOutput& step) {
  while (Sequence* sequence = queue_.NextWaiting()) {
    if (BudgetedTokens(*sequence, step, 0) == 0) return;
    if (sequence->num_steps_under_way > 0) return;  // preempted since, and not all of its tokens are known
    std::vector<BlockId> prefix;
    if (sequence->blocks.empty() && MayReadPrefixCache(*sequence)) {
      prefix = kv_cache_.FindPrefix(sequence->request->request.cache_salt, sequence->token_ids);
    }
    if (!MakeRoomToAdmit(*sequence, prefix, step)) return;
    Admit(*sequence, prefix, step);
  }
}

// Whether all tokens of the front of the line fit. Paused sequences make room for it; forks that wait behind it do so
// only when nothing runs that would make room in time.
bool Scheduler::MakeRoomToAdmit(const Sequence& sequence, std::span<const BlockId> prefix,
                                const SchedulerOutput& step) {
  const int spare = static_cast<int>(queue_.running().size());
  while (kv_cache_.NumFreeBlocksNeeded(sequence.blocks, prefix, sequence.num_tokens()) + spare >
         kv_cache_.num_free_blocks()) {
    Sequence* victim = queue_.LastHolder();
    HEDDLE_CHECK(victim != nullptr, "a sequence alone does not fit");
    if (!victim->request->paused && (!step.empty() || num_steps_under_way_ > 0)) return false;
    HEDDLE_CHECK(victim != &sequence, "a sequence alone does not fit");
    Preempt(*victim);
  }
  return true;
}

void Scheduler::Admit(Sequence& sequence, std::span<const BlockId> prefix, SchedulerOutput& step) {
  RequestState& request = *sequence.request;
  queue_.Remove(sequence);
  if (!prefix.empty()) {
    kv_cache_.AdoptPrefix(prefix, sequence.blocks);
    sequence.num_computed_tokens = static_cast<int>(prefix.size()) * config_.block_size;
  }
  sequence.num_settled_tokens = sequence.num_computed_tokens;
  if (!request.started) {
    request.started = true;
    --num_queued_requests_;
    if (kv_cache_.prefix_caching() && MayReadPrefixCache(sequence)) {
      request.num_cached_tokens = sequence.num_computed_tokens;
      prefix_cache_queries_ += request.prompt_len;
      prefix_cache_hits_ += request.num_cached_tokens;
    }
  }
  const int num_tokens = BudgetedTokens(sequence, step, 0);
  HEDDLE_CHECK(kv_cache_.AllocateSlots(sequence.num_computed_tokens + num_tokens, sequence.blocks), "no room made");
  sequence.status = SequenceStatus::kRunning;
  queue_.Insert(sequence);

  step.new_sequences.push_back({.id = sequence.id,
                                .request_id = request.request.id,
                                .token_ids = sequence.token_ids,
                                .prompt_len = request.prompt_len,
                                .sequence_index = sequence.order.index,
                                .sampling_params = request.request.sampling_params,
                                .block_ids = sequence.blocks.block_ids,
                                .num_computed_tokens = sequence.num_computed_tokens});
  AppendScheduled(sequence, num_tokens, step);
}

void Scheduler::Preempt(Sequence& sequence) {
  queue_.Remove(sequence);
  kv_cache_.Free(sequence.blocks);
  sequence.num_computed_tokens = 0;
  if (sequence.status == SequenceStatus::kRunning) {
    sequence.status = SequenceStatus::kWaiting;
    finished_.push_back(sequence.id);
    ++num_preemptions_;
  }
  queue_.Insert(sequence);
}

std::vector<SequenceUpdate> Scheduler::Update(const SchedulerOutput& step, ModelOutput output) {
  HEDDLE_CHECK(output.sequences.size() == step.scheduled.size(), "the output belongs to another step");
  HEDDLE_CHECK(num_steps_under_way_ > 0, "no step is under way");
  --num_steps_under_way_;
  std::vector<SequenceUpdate> updates;
  updates.reserve(step.scheduled.size());
  for (size_t i = 0; i < step.scheduled.size(); ++i) {
    HEDDLE_CHECK(output.sequences[i].id == step.scheduled[i].id, "the output belongs to another step");
    Sequence* sequence = FindSequence(step.scheduled[i].id);
    if (sequence != nullptr) TakeIn(*sequence, step.scheduled[i], output.sequences[i], updates);
  }
  return updates;
}

void Scheduler::TakeIn(Sequence& sequence, const ScheduledSequence& scheduled, SequenceOutput& result,
                       std::vector<SequenceUpdate>& updates) {
  RequestState& request = *sequence.request;
  --sequence.num_steps_under_way;
  if (scheduled.samples) --sequence.num_pending_tokens;
  const int begin = sequence.num_settled_tokens;
  sequence.num_settled_tokens += scheduled.num_scheduled_tokens;
  // If it was preempted since, what the step left in its blocks is gone. What came to the host is as good.
  if (sequence.status == SequenceStatus::kRunning) Settle(sequence, result.failure);

  SequenceUpdate update;
  update.request_id = request.request.id;
  update.sequence_id = sequence.id;
  update.sequence_index = sequence.order.index;
  update.num_cached_tokens = request.num_cached_tokens;
  update.prompt_logprobs = TakeNewPromptLogprobs(std::move(result.prompt_logprobs), begin, sequence);
  if (result.failure != SequenceFailure::kNone) {
    update.finish_reason = FinishReason::kError;
    update.failure = result.failure;
  } else if (scheduled.samples) {
    AppendToken(sequence, result, update);
  }
  update.num_generated_tokens = sequence.num_generated_tokens();
  const bool ended = update.finish_reason != FinishReason::kNone;
  if (update.sampled || ended || update.prompt_logprobs != nullptr) updates.push_back(std::move(update));
  if (ended) Finish(sequence);
}

// Lets others find what a step has computed, or keeps them from it.
void Scheduler::Settle(Sequence& sequence, SequenceFailure failure) {
  if (failure == SequenceFailure::kInvalidLogits) return kv_cache_.ForgetOwnBlocks(sequence.blocks);
  RequestState& request = *sequence.request;
  const std::span<const int32_t> settled(sequence.token_ids.data(), static_cast<size_t>(sequence.num_settled_tokens));
  kv_cache_.CacheBlocks(request.request.cache_salt, settled, sequence.blocks);
  if (!request.prompt_computed && sequence.num_settled_tokens >= request.prompt_len) ForkOthers(sequence);
}

void Scheduler::AppendToken(Sequence& sequence, SequenceOutput& result, SequenceUpdate& update) {
  HEDDLE_CHECK(result.sampled, "sequence " + std::to_string(sequence.id) + " got no token");
  sequence.token_ids.push_back(result.token_id);
  update.sampled = true;
  update.token_id = result.token_id;
  update.logprob = result.logprob;
  update.logprobs = std::move(result.logprobs);
  const StopVerdict verdict = CheckStop(sequence, config_.max_model_len);
  update.finish_reason = verdict.reason;
  update.stop_token_id = verdict.stop_token_id;
  update.stopped_by_eos = verdict.by_eos;
  update.stopped_by_repetition = verdict.by_repetition;
}

// The prompt is computed: the other sequences share its full blocks, short of one token, which each must compute itself
// to sample its own next one.
void Scheduler::ForkOthers(const Sequence& leader) {
  RequestState& request = *leader.request;
  request.prompt_computed = true;
  const int num_shared_blocks = (request.prompt_len - 1) / config_.block_size;
  for (const auto& sequence : request.sequences) {
    if (sequence == nullptr || sequence->status != SequenceStatus::kAwaitingPrompt) continue;
    queue_.Remove(*sequence);
    sequence->token_ids = request.request.prompt_token_ids;
    kv_cache_.Fork(leader.blocks, num_shared_blocks, sequence->blocks);
    sequence->num_computed_tokens = num_shared_blocks * config_.block_size;
    sequence->status = SequenceStatus::kWaiting;
    queue_.Insert(*sequence);
  }
  std::vector<int32_t>().swap(request.request.prompt_token_ids);
}

void Scheduler::FinishSequence(SequenceId id) {
  if (Sequence* sequence = FindSequence(id)) Finish(*sequence);
}

void Scheduler::AbortRequest(RequestId id) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  // From the last, so that no fork takes over from a sequence that ends before it.
  RequestState& request = *it->second;
  size_t index = request.sequences.size();
  for (int num_open = request.num_open_sequences; num_open > 0; --num_open) {
    do --index;
    while (request.sequences[index] == nullptr);
    Finish(*request.sequences[index]);
  }
}

// Destroys the sequence, and with the last one the request.
void Scheduler::Finish(Sequence& sequence) {
  RequestState& request = *sequence.request;
  const bool was_leader = !request.prompt_computed && sequence.status != SequenceStatus::kAwaitingPrompt;
  queue_.Remove(sequence);
  kv_cache_.Free(sequence.blocks);
  if (sequence.status == SequenceStatus::kRunning) finished_.push_back(sequence.id);
  sequences_.erase(sequence.id);
  request.sequences[static_cast<size_t>(sequence.order.index)].reset();
  if (--request.num_open_sequences > 0) {
    if (was_leader) PromoteFork(request);
    return;
  }
  if (!request.started) --num_queued_requests_;
  requests_.erase(request.request.id);
}

void Scheduler::SetPaused(RequestId id, bool paused) {
  const auto it = requests_.find(id);
  if (it == requests_.end() || it->second->paused == paused) return;
  RequestState& request = *it->second;
  for (const auto& sequence : request.sequences) {
    if (sequence != nullptr) queue_.Remove(*sequence);
  }
  request.paused = paused;
  for (const auto& sequence : request.sequences) {
    if (sequence != nullptr) queue_.Insert(*sequence);
  }
}

Sequence* Scheduler::FindSequence(SequenceId id) const {
  const auto it = sequences_.find(id);
  return it == sequences_.end() ? nullptr : it->second;
}

SchedulerStats Scheduler::stats() const {
  return {.num_running = queue_.num_running(),
          .num_waiting = queue_.num_waiting(),
          .num_free_blocks = kv_cache_.num_free_blocks(),
          .num_total_blocks = kv_cache_.num_total_blocks(),
          .prefix_cache_queries = prefix_cache_queries_,
          .prefix_cache_hits = prefix_cache_hits_,
          .num_preemptions = num_preemptions_};
}

void Scheduler::CheckConsistency() const {
  std::vector<Sequence*> sequences;
  std::vector<const BlockTable*> tables;
  for (const auto& [id, sequence] : sequences_) {
    sequences.push_back(sequence);
    tables.push_back(&sequence->blocks);
    const int num_slots = sequence->blocks.size() * config_.block_size;
    const bool running = sequence->status == SequenceStatus::kRunning;
    HEDDLE_CHECK(running ? sequence->num_computed_tokens <= num_slots : sequence->num_computed_tokens == num_slots,
                 "sequence " + std::to_string(id) + " has " + std::to_string(num_slots) + " slots");
  }
  queue_.CheckConsistency(sequences);
  kv_cache_.CheckConsistency(tables);
}

}  // namespace heddle
