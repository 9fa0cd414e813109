#include "engine/engine_core.h"

#include <chrono>

namespace heddle {
namespace {

// A request with more emitted tokens than this that nobody took is paused, and resumed at half of it. Large enough to
// ride out a busy event loop, small enough to bound what piles up.
constexpr int64_t kMaxUnacknowledgedTokens = 1024;

}  // namespace

EngineCore::EngineCore(const SchedulerConfig& config, std::unique_ptr<Executor> executor,
                       std::shared_ptr<const Vocabulary> vocabulary)
    : executor_(std::move(executor)), vocabulary_(std::move(vocabulary)), scheduler_(config) {}

void EngineCore::AddRequest(Request request) {
  const RequestId id = request.id;
  OpenRequest open{RequestOutput(request, vocabulary_), static_cast<int>(request.prompt_token_ids.size())};
  scheduler_.AddRequest(std::move(request));
  requests_.emplace(id, std::move(open));
  ++num_waiting_requests_;
}

void EngineCore::AbortRequest(RequestId id, EngineOutput& output) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  scheduler_.AbortRequest(id);
  it->second.output.EndAll(FinishReason::kAbort);
  Emit(it, output);
}

void EngineCore::Acknowledge(RequestId id, int num_tokens) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  OpenRequest& request = it->second;
  request.unacknowledged -= num_tokens;
  if (request.paused && request.unacknowledged <= kMaxUnacknowledgedTokens / 2) {
    request.paused = false;
    scheduler_.SetPaused(id, false);
  }
}

bool EngineCore::Step(EngineOutput& output) {
  const auto start = std::chrono::steady_clock::now();
  const SchedulerOutput step = scheduler_.Schedule();
  if (step.empty()) return false;
  MarkStarted(step, output);
  ModelOutput model_output = executor_->Execute(step);
  for (SequenceUpdate& update : scheduler_.Update(step, std::move(model_output))) {
    const auto it = requests_.find(update.request_id);
    HEDDLE_CHECK(it != requests_.end(), "update for an unknown request");
    if (update.sampled) ++num_generated_tokens_;
    const SequenceId sequence_id = update.sequence_id;
    if (it->second.output.Put(std::move(update))) scheduler_.FinishSequence(sequence_id);
    Emit(it, output);
  }
  ++num_steps_;
  output.step_seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  output.step_tokens.push_back(step.total_num_scheduled_tokens);
  return true;
}

void EngineCore::MarkStarted(const SchedulerOutput& step, EngineOutput& output) {
  for (const NewSequenceData& sequence : step.new_sequences) {
    const auto it = requests_.find(sequence.request_id);
    HEDDLE_CHECK(it != requests_.end(), "a step of an unknown request");
    OpenRequest& request = it->second;
    if (request.started) continue;
    request.started = true;
    --num_waiting_requests_;
    num_prompt_tokens_ += request.prompt_len;
    output.started.push_back(sequence.request_id);
  }
}

void EngineCore::Emit(OpenRequests::iterator it, EngineOutput& output) {
  OpenRequest& request = it->second;
  const size_t first = output.deltas.size();
  request.output.TakeDue(output.deltas);
  for (size_t i = first; i < output.deltas.size(); ++i) {
    request.unacknowledged += static_cast<int64_t>(output.deltas[i].token_ids.size());
  }
  if (request.output.done()) {
    if (!request.started) --num_waiting_requests_;
    requests_.erase(it);
  } else if (!request.paused && request.unacknowledged > kMaxUnacknowledgedTokens) {
    request.paused = true;
    scheduler_.SetPaused(it->first, true);
  }
}

}  // namespace heddle
