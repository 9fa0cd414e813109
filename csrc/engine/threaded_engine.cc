#include "engine/threaded_engine.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "executor/thread_executor.h"
#include "loader/quantized_checkpoint.h"

namespace heddle {
namespace {

// Spreads (engine seed, request number) over 64 bits: the finalizer of MurmurHash3, by Austin Appleby.
uint64_t DeriveSeed(uint64_t engine_seed, RequestId id) {
  uint64_t x = engine_seed + id * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdu;
  x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53u;
  return x ^ (x >> 33);
}

std::unique_ptr<WeightSource> OpenWeights(const EngineConfig& config, const WorkerConfig& worker) {
  if (config.load_format == LoadFormat::kDummy) {
    return DummyWeights(worker.model.dtype, worker.formats.sparsity() != Sparsity::kNone);
  }
  return OpenQuantizedCheckpoint(config.model, worker.formats.stored());
}

}  // namespace

ThreadedEngine::ThreadedEngine(EngineConfig config, std::shared_ptr<const Vocabulary> vocabulary,
                               EngineListener& listener)
    : config_(std::move(config)), vocabulary_(std::move(vocabulary)), listener_(listener) {
  try {
    thread_ = std::thread([this] { Main(); });
  } catch (const std::system_error& error) {
    throw Error(ErrorCode::kInsufficientMemory, std::string("the system refused the engine's thread: ") + error.what());
  }
}

ThreadedEngine::~ThreadedEngine() { Stop(); }

RequestId ThreadedEngine::AddRequest(Request request, bool derive_seed) {
  request.id = last_request_id_.fetch_add(1) + 1;
  request.eos_token_ids = eos_token_ids_;
  if (derive_seed) request.sampling_params.seed = DeriveSeed(config_.seed, request.id);
  ValidateRequest(request, limits_);
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) throw Error(ErrorCode::kEngineClosed, "the engine is closed");
    if (failure_) throw Error(ErrorCode::kEngineFailed, "the engine has failed: " + failure_->message);
    const int waiting = num_queued_requests_ + num_waiting_requests_;
    if (waiting >= config_.max_num_waiting) {
      throw Error(ErrorCode::kQueueFull, "maxNumWaiting allows " + std::to_string(config_.max_num_waiting) +
                                             " waiting requests, and as many wait already");
    }
    ++num_queued_requests_;
  }
  const RequestId id = request.id;
  Enqueue(std::make_unique<Request>(std::move(request)));
  return id;
}

void ThreadedEngine::AbortRequest(RequestId id) { Enqueue(AbortCommand{id}); }

void ThreadedEngine::Acknowledge(RequestId id, int num_tokens) { Enqueue(AcknowledgeCommand{id, num_tokens}); }

void ThreadedEngine::Enqueue(Command command) {
  {
    const std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
  }
  wake_.notify_one();
}

EngineStats ThreadedEngine::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void ThreadedEngine::Stop() {
  const std::lock_guard stop_lock(stop_mutex_);
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (executor_ != nullptr) executor_->Cancel();
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void ThreadedEngine::Main() {
  try {
    if (Load()) Loop();
  } catch (...) {
    // Not even the report of a failure found memory. The process is worth more than the report.
  }
  {
    const std::lock_guard lock(mutex_);
    executor_ = nullptr;
  }
  core_.reset();
}

bool ThreadedEngine::Load() {
  try {
    const EnginePlan plan = PlanEngine(config_);
    CheckFits(plan);
    const auto weights = OpenWeights(config_, plan.worker);
    auto executor = CreateThreadExecutor(
        plan.worker, config_.tensor_parallel_size, config_.comm_timeout_ms, *weights,
        [this](double fraction) { listener_.OnProgress(fraction); }, stopping_);

    const ModelConfig& model = plan.worker.model;
    EngineInfo info{.architecture = model.architecture,
                    .vocab_size = model.vocab_size,
                    .max_model_len = plan.scheduler.max_model_len,
                    .dtype = plan.worker.formats.dtype(),
                    .quantization = plan.worker.formats.quantization(),
                    .kv_cache_dtype = plan.worker.kv_cache_dtype,
                    .block_size = plan.scheduler.block_size,
                    .num_blocks = plan.scheduler.num_blocks,
                    .isa = plan.worker.isa,
                    .device = plan.worker.device,
                    .eos_token_ids = model.eos_token_ids};
    const int max_logprobs = config_.max_logprobs < 0 ? model.vocab_size : config_.max_logprobs;
    limits_ = {model.vocab_size, plan.scheduler.max_model_len, std::min(max_logprobs, model.vocab_size)};
    eos_token_ids_ = model.eos_token_ids;
    {
      const std::lock_guard lock(mutex_);
      executor_ = executor.get();
      stats_.ranks = executor->Stats();
      stats_.scheduler.num_total_blocks = plan.scheduler.num_blocks - 1;
      stats_.scheduler.num_free_blocks = plan.scheduler.num_blocks - 1;
      stats_.last_step = std::chrono::steady_clock::now();
    }
    core_ = std::make_unique<EngineCore>(plan.scheduler, std::move(executor), vocabulary_);
    listener_.OnReady(info);
    return true;
  } catch (...) {
    listener_.OnLoadFailed(CurrentFailure());
    return false;
  }
}

void ThreadedEngine::Loop() {
  std::vector<Command> commands;
  bool progressed = true;
  while (!stopping_) {
    {
      std::unique_lock lock(mutex_);
      // Nothing to do, or nothing that can run until a command changes it.
      wake_.wait(lock, [&] { return stopping_ || !commands_.empty() || (progressed && core_->HasWork()); });
      commands.swap(commands_);
    }
    if (stopping_) return;
    try {
      EngineOutput output;
      RunCommands(commands, output);
      progressed = core_->Step(output);
      Publish(std::move(output));
    } catch (...) {
      const EngineFailure failure = CurrentFailure();
      if (!stopping_) Fail(failure);
      return;
    }
  }
}

void ThreadedEngine::RunCommands(std::vector<Command>& commands, EngineOutput& output) {
  int num_added = 0;
  for (Command& command : commands) {
    if (auto* request = std::get_if<std::unique_ptr<Request>>(&command)) {
      ++num_added;
      core_->AddRequest(std::move(**request), output);
    } else if (const auto* abort = std::get_if<AbortCommand>(&command)) {
      core_->AbortRequest(abort->id, output);
    } else {
      const auto& acknowledge = std::get<AcknowledgeCommand>(command);
      core_->Acknowledge(acknowledge.id, acknowledge.num_tokens);
    }
  }
  commands.clear();
  // In one go, so that a request under way from the queue to the scheduler is counted once, neither twice nor never.
  const std::lock_guard lock(mutex_);
  num_queued_requests_ -= num_added;
  num_waiting_requests_ = core_->num_waiting_requests();
}

void ThreadedEngine::Publish(EngineOutput output) {
  {
    const std::lock_guard lock(mutex_);
    num_waiting_requests_ = core_->num_waiting_requests();
    stats_.scheduler = core_->scheduler_stats();
    stats_.ranks = core_->rank_stats();
    stats_.num_steps = core_->num_steps();
    stats_.step_seconds = core_->step_seconds();
    stats_.num_prompt_tokens = core_->num_prompt_tokens();
    stats_.num_generated_tokens = core_->num_generated_tokens();
    if (!output.step_seconds.empty()) stats_.last_step = std::chrono::steady_clock::now();
  }
  if (!output.empty()) listener_.OnOutput(std::move(output));
}

void ThreadedEngine::Fail(const EngineFailure& failure) {
  {
    const std::lock_guard lock(mutex_);
    failure_ = failure;
    stats_.scheduler.num_running = 0;
    stats_.scheduler.num_waiting = 0;
    stats_.scheduler.num_free_blocks = stats_.scheduler.num_total_blocks;
  }
  EngineOutput output;
  output.failure = failure;
  listener_.OnOutput(std::move(output));
}

}  // namespace heddle
