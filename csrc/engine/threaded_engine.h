// The engine with its thread. Loads the model, then steps while there is work and sleeps while there is none. The
// thread never waits for its owner, and its owner never waits for the thread, except in Stop.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "engine/engine_core.h"
#include "engine/engine_plan.h"
#include "engine/validate_request.h"
#include "text/vocabulary.h"

namespace heddle {

// Fixed once the model is loaded.
struct EngineInfo {
  std::string architecture;
  int vocab_size = 0;
  int max_model_len = 0;
  DType dtype = DType::kFloat32;
  Quantization quantization = Quantization::kNone;
  DType kv_cache_dtype = DType::kFloat32;
  int block_size = 0;
  int num_blocks = 0;
  CpuIsa isa = CpuIsa::kScalar;
  DeviceType device = DeviceType::kCpu;
  std::vector<int32_t> eos_token_ids;
};

// Called on the engine's thread; progress on any rank's. Must not block, throw, or call back into the engine.
class EngineListener {
 public:
  virtual ~EngineListener() = default;
  virtual void OnProgress(double fraction) = 0;
  // Exactly one of the next two comes, once.
  virtual void OnReady(const EngineInfo& info) = 0;
  virtual void OnLoadFailed(const EngineFailure& failure) = 0;
  // After each step that gave something. The output with `failure` is the last; all requests are over then.
  virtual void OnOutput(EngineOutput output) = 0;
};

struct EngineStats {
  SchedulerStats scheduler;
  std::vector<RankStats> ranks;
  int64_t num_steps = 0;
  double step_seconds = 0;  // of all steps together
  int64_t num_prompt_tokens = 0;
  int64_t num_generated_tokens = 0;
  std::chrono::steady_clock::time_point last_step;  // when it ended; before the first, when loading ended
};

class ThreadedEngine {
 public:
  // Starts loading at once. `vocabulary` may be null. `listener` outlives this. Fails with kInsufficientMemory when the
  // system refuses the thread.
  ThreadedEngine(EngineConfig config, std::shared_ptr<const Vocabulary> vocabulary, EngineListener& listener);
  ~ThreadedEngine();  // stops

  // -- Any thread; none of these waits for the engine --

  // Checks, numbers and queues a request; its `id` is set here, and its seed when `derive_seed`. Fails with
  // kInvalidArgument, kQueueFull, kEngineFailed, kEngineClosed. REQUIRES: OnReady was called.
  RequestId AddRequest(Request request, bool derive_seed);
  void AbortRequest(RequestId id);
  void Acknowledge(RequestId id, int num_tokens);
  // As of the last step.
  EngineStats stats() const;

  // Abandons the step under way, ends the thread and waits for it. Open requests get no further deltas. Idempotent.
  void Stop();

 private:
  struct AbortCommand {
    RequestId id;
  };
  struct AcknowledgeCommand {
    RequestId id;
    int num_tokens;
  };
  // Small, since an acknowledgement comes for every token: a request lies elsewhere.
  using Command = std::variant<std::unique_ptr<Request>, AbortCommand, AcknowledgeCommand>;

  void Main();
  bool Load();
  void Loop();
  // Carries out what was queued.
  void RunCommands(std::vector<Command>& commands, EngineOutput& output);
  void Publish(EngineOutput output);
  void Fail(const EngineFailure& failure);
  void Enqueue(Command command);

  const EngineConfig config_;
  const std::shared_ptr<const Vocabulary> vocabulary_;
  EngineListener& listener_;
  RequestLimits limits_;  // set before OnReady
  std::vector<int32_t> eos_token_ids_;
  std::unique_ptr<EngineCore> core_;   // engine thread only
  std::atomic<bool> stopping_{false};  // also what ranks watch
  std::atomic<uint64_t> last_request_id_{0};

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Command> commands_;  // guarded by mutex_, as all below
  Executor* executor_ = nullptr;   // while it may be cancelled
  int num_queued_requests_ = 0;    // in commands_
  int num_waiting_requests_ = 0;   // in the scheduler, not yet worked on
  std::optional<EngineFailure> failure_;
  EngineStats stats_;

  std::mutex stop_mutex_;  // one Stop joins
  std::thread thread_;     // last: starts when all else is there
};

}  // namespace heddle
