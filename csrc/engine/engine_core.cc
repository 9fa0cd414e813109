#include "engine/engine_core.h"

#include <algorithm>

namespace heddle {
namespace {

// A request with more emitted tokens than this that nobody took is paused, and resumed at half of it. Large enough to
// ride out a busy event loop, small enough to bound what piles up.
constexpr int64_t kMaxUnacknowledgedTokens = 1024;

}  // namespace

EngineCore::EngineCore(const SchedulerConfig& config, std::unique_ptr<Executor> executor,
                       std::shared_ptr<const Vocabulary> vocabulary)
    : executor_(std::move(executor)), vocabulary_(std::move(vocabulary)), scheduler_(config) {}

void EngineCore::AddRequest(Request request, EngineOutput& output) {
  const RequestId id = request.id;
  const int n = request.sampling_params.n;
  try {
    OpenRequest open{RequestOutput(request, vocabulary_), static_cast<int>(request.prompt_token_ids.size())};
    scheduler_.AddRequest(std::move(request));
    requests_.emplace(id, std::move(open));
    ++num_waiting_requests_;
  } catch (...) {
    scheduler_.AbortRequest(id);
    const EngineFailure failure = CurrentRequestFailure();
    for (int index = 0; index < n; ++index) {
      SequenceDelta& delta = output.deltas.emplace_back();
      delta.request_id = id;
      delta.index = index;
      delta.finish_reason = FinishReason::kError;
      delta.end = std::make_unique<EndDetail>();
      delta.end->error = failure;
    }
  }
}

void EngineCore::AbortRequest(RequestId id, EngineOutput& output) {
  const auto it = requests_.find(id);
  if (it == requests_.end()) return;
  scheduler_.AbortRequest(id);
  Guard(it, [&] { it->second.output.Abort(); });
  Emit(it, output);
}

template <typename Work>
void EngineCore::Guard(OpenRequests::iterator request, const Work& work) {
  try {
    work();
  } catch (...) {
    scheduler_.AbortRequest(request->first);
    request->second.output.Fail(CurrentRequestFailure());
  }
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
  SubmitSteps(output);
  if (under_way_.empty()) return false;
  ModelOutput model_output = executor_->Wait();
  const StepUnderWay done = std::move(under_way_.front());
  under_way_.pop_front();
  const SchedulerOutput& step = done.step;
  output.deltas.reserve(output.deltas.size() + step.scheduled.size());
  output.token_ids.reserve(output.token_ids.size() + step.scheduled.size());
  for (SequenceUpdate& update : scheduler_.Update(step, std::move(model_output))) {
    const auto it = requests_.find(update.request_id);
    if (it == requests_.end()) continue;  // failed at another of its sequences just now
    if (update.sampled) CountToken(it->second);
    const SequenceId sequence_id = update.sequence_id;
    Guard(it, [&] {
      if (it->second.output.Put(std::move(update))) scheduler_.FinishSequence(sequence_id);
    });
    Emit(it, output);
  }
  ++num_steps_;
  // Steps follow each other on the device: a step's time begins when it is submitted and the one before it is done.
  const auto now = std::chrono::steady_clock::now();
  const std::chrono::duration<double> seconds = now - std::max(done.submitted, last_step_);
  last_step_ = now;
  step_seconds_ += seconds.count();
  output.step_seconds.push_back(seconds.count());
  output.step_tokens.push_back(step.total_num_scheduled_tokens);
  return true;
}

void EngineCore::SubmitSteps(EngineOutput& output) {
  const auto most = static_cast<size_t>(executor_->max_steps_under_way());
  while (under_way_.size() < most && (under_way_.empty() || scheduler_.MayScheduleAhead())) {
    const auto now = std::chrono::steady_clock::now();
    SchedulerOutput step = scheduler_.Schedule();
    if (step.empty()) return;
    MarkStarted(step, output);
    under_way_.push_back({std::move(step), now});
    executor_->Submit(under_way_.back().step);
  }
}

void EngineCore::MarkStarted(const SchedulerOutput& step, EngineOutput& output) {
  for (const NewSequenceData& sequence : step.new_sequences) {
    const auto it = requests_.find(sequence.request_id);
    HEDDLE_CHECK(it != requests_.end(), "a step of an unknown request");
    OpenRequest& request = it->second;
    if (request.started) continue;
    request.started = true;
    --num_waiting_requests_;
    output.started.push_back(sequence.request_id);
  }
}

// A request's prompt counts with its first token: only then all of it was computed.
void EngineCore::CountToken(OpenRequest& request) {
  ++num_generated_tokens_;
  if (request.prompt_counted) return;
  request.prompt_counted = true;
  num_prompt_tokens_ += request.prompt_len;
}

void EngineCore::Emit(OpenRequests::iterator it, EngineOutput& output) {
  OpenRequest& request = it->second;
  const auto num_tokens_before = std::ssize(output.token_ids);
  request.output.TakeDue(output);
  request.unacknowledged += std::ssize(output.token_ids) - num_tokens_before;
  if (request.output.done()) {
    if (!request.started) --num_waiting_requests_;
    requests_.erase(it);
  } else if (!request.paused && request.unacknowledged > kMaxUnacknowledgedTokens) {
    request.paused = true;
    scheduler_.SetPaused(it->first, true);
  }
}

}  // namespace heddle
