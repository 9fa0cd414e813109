// The engine without its thread: what one step is, from the scheduler to the text.
//
// The boundary of a request's failures: what one request makes throw outside the ranks' step ends that request alone.
// A plain synchronous object: every call on the engine thread.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/engine_output.h"
#include "engine/request_output.h"
#include "executor/executor.h"
#include "scheduler/scheduler.h"

namespace heddle {

class EngineCore {
 public:
  // `vocabulary` may be null: requests then get ids without text.
  EngineCore(const SchedulerConfig& config, std::unique_ptr<Executor> executor,
             std::shared_ptr<const Vocabulary> vocabulary);

  // A request that cannot be taken on ends at once, with kError in its deltas. REQUIRES: it passed ValidateRequest.
  void AddRequest(Request request, EngineOutput& output);

  // Ends a request and emits its last deltas. Unknown ids are ignored.
  void AbortRequest(RequestId id, EngineOutput& output);

  // The consumer took this many tokens of the request. Unknown ids are ignored.
  void Acknowledge(RequestId id, int num_tokens);

  // Schedules and submits what the executor has room for, waits for the oldest step, takes it in and emits. False when
  // nothing could run. What fails in making one request's output ends that request. Fails as Executor does, and where
  // the scheduler does: the engine is over then.
  bool Step(EngineOutput& output);

  // Whether there is anything to do or to wait for.
  bool HasWork() const { return !requests_.empty() || !under_way_.empty(); }
  int num_waiting_requests() const { return num_waiting_requests_; }  // open, and no step worked on them yet
  SchedulerStats scheduler_stats() const { return scheduler_.stats(); }
  std::vector<RankStats> rank_stats() const { return executor_->Stats(); }
  int64_t num_steps() const { return num_steps_; }
  double step_seconds() const { return step_seconds_; }  // of all steps together
  int64_t num_prompt_tokens() const { return num_prompt_tokens_; }
  int64_t num_generated_tokens() const { return num_generated_tokens_; }

 private:
  struct OpenRequest {
    RequestOutput output;
    int prompt_len = 0;
    bool started = false;
    bool prompt_counted = false;
    bool paused = false;
    int64_t unacknowledged = 0;  // tokens emitted and not yet taken
  };
  struct StepUnderWay {
    SchedulerOutput step;
    std::chrono::steady_clock::time_point submitted;
  };
  using OpenRequests = std::unordered_map<RequestId, OpenRequest>;

  // Does a request's own work. Where it throws, the request ends with kError; the scheduler then knows it no more.
  template <typename Work>
  void Guard(OpenRequests::iterator request, const Work& work);
  void SubmitSteps(EngineOutput& output);
  void MarkStarted(const SchedulerOutput& step, EngineOutput& output);
  void CountToken(OpenRequest& request);
  void Emit(OpenRequests::iterator request, EngineOutput& output);

  std::unique_ptr<Executor> executor_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  Scheduler scheduler_;
  OpenRequests requests_;
  std::deque<StepUnderWay> under_way_;               // oldest first
  std::chrono::steady_clock::time_point last_step_;  // when it was done
  int num_waiting_requests_ = 0;
  int64_t num_steps_ = 0;
  double step_seconds_ = 0;
  int64_t num_prompt_tokens_ = 0;
  int64_t num_generated_tokens_ = 0;
};

}  // namespace heddle
