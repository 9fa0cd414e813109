#include "executor/thread_executor.h"

#include <mutex>
#include <optional>

#include "comm/local_communicator.h"
#include "comm/nccl_communicator.h"
#include "comm/peer_communicator.h"
#include "device/thread_pool.h"

namespace heddle {
namespace {

// Sums the bytes that ranks report while loading, and passes the fraction on, ascending.
class LoadProgress {
 public:
  LoadProgress(int64_t total, const std::function<void(double)>& on_progress)
      : total_(total), on_progress_(on_progress) {}

  void Add(int64_t bytes) {
    const std::lock_guard lock(mutex_);
    done_ += bytes;
    on_progress_(total_ > 0 ? std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_)) : 1.0);
  }

 private:
  const int64_t total_;
  const std::function<void(double)>& on_progress_;
  std::mutex mutex_;
  int64_t done_ = 0;
};

std::vector<std::unique_ptr<Communicator>> CreateGroup(const WorkerConfig& config, int size,
                                                       std::chrono::milliseconds timeout) {
  if (config.device == DeviceType::kCpu || size == 1) return CreateLocalGroup(size, timeout, config.oversubscribed);
  auto group = CreateNcclGroup(config.devices, config.nccl, timeout);
  return config.custom_all_reduce ? CreatePeerGroup(std::move(group), timeout) : std::move(group);
}

class ThreadExecutor : public Executor {
 public:
  ThreadExecutor(const WorkerConfig& config, int size, int64_t timeout_ms, std::atomic<bool>& cancelled)
      : config_(config), ranks_(size, config.oversubscribed) {
    auto group = CreateGroup(config_, size, std::chrono::milliseconds(timeout_ms));
    for (int rank = 0; rank < size; ++rank) {
      workers_.push_back(
          std::make_unique<Worker>(config_, rank, size, std::move(group[static_cast<size_t>(rank)]), cancelled));
    }
  }

  // Ranks give their communicators up one after the other: none may wait for the next, nor for what the next captured.
  ~ThreadExecutor() override {
    AbortAll(ErrorCode::kCancelled);
    for (const auto& worker : workers_) worker->Unload();
  }

  void Load(WeightSource& weights, const std::function<void(double)>& on_progress) {
    int64_t total = 0;
    for (int rank = 0; rank < size(); ++rank) {
      total += config_.family->footprint(config_.model, {rank, size(), nullptr}, config_.formats, config_.device)
                   .weight_bytes;
    }
    LoadProgress progress(total, on_progress);
    const std::function<void(int64_t)> on_packed = [&progress](int64_t bytes) { progress.Add(bytes); };
    RunOnAllRanks([&](int rank) { workers_[static_cast<size_t>(rank)]->Load(weights, on_packed); });
    on_progress(1.0);
  }

  int max_steps_under_way() const override { return config_.device == DeviceType::kCuda ? 2 : 1; }

  void Submit(const SchedulerOutput& step) override {
    RunOnAllRanks([&](int rank) { workers_[static_cast<size_t>(rank)]->Submit(step); });
  }

  ModelOutput Wait() override {
    ThrowFailure();
    ModelOutput output;
    RunTask([&](int rank) { output = WaitOn(*workers_[static_cast<size_t>(rank)]); }, 0);
    ThrowFailure();
    return output;
  }

  void Cancel() override { AbortAll(ErrorCode::kCancelled); }

  std::vector<RankStats> Stats() const override {
    std::vector<RankStats> ranks;
    for (const auto& worker : workers_) {
      const WorkerStats& stats = worker->stats();
      ranks.push_back({static_cast<int>(ranks.size()), stats.num_heads, stats.num_kv_heads, stats.weight_bytes,
                       stats.weights_from_cache, stats.kv_cache_bytes, static_cast<double>(stats.busy_ns) * 1e-9,
                       static_cast<double>(stats.ops_ns) * 1e-9, static_cast<double>(stats.communication_ns) * 1e-9,
                       static_cast<double>(stats.device_wait_ns) * 1e-9,
                       static_cast<double>(stats.device_idle_ns) * 1e-9});
    }
    return ranks;
  }

 private:
  int size() const { return static_cast<int>(workers_.size()); }

  // Returns when every rank has run `task`, and throws the first failure.
  template <typename Task>
  void RunOnAllRanks(const Task& task) {
    ThrowFailure();
    ranks_.Run([&](int rank) { RunTask(task, rank); });
    ThrowFailure();
  }

  template <typename Task>
  void RunTask(const Task& task, int rank) {
    try {
      task(rank);
    } catch (const Error& error) {
      Fail(rank, error.code(), error.what());
    } catch (const std::bad_alloc&) {
      Fail(rank, ErrorCode::kInsufficientMemory, "the system refused memory");
    } catch (const std::exception& error) {
      Fail(rank, ErrorCode::kInternal, error.what());
    }
  }

  ModelOutput WaitOn(Worker& worker) {
    try {
      return worker.Wait([this] { CheckOtherDevices(); });
    } catch (const Error&) {
      CheckOtherDevices();  // collectives end early, and with a failure, where a peer is lost
      throw;
    }
  }

  // While rank 0 waits, no other rank's thread looks at its device, and a collective does not say whose peer is lost.
  void CheckOtherDevices() {
    const auto check = [this](int rank) { workers_[static_cast<size_t>(rank)]->CheckDevice(); };
    for (int rank = 1; rank < size(); ++rank) RunTask(check, rank);
    ThrowFailure();
  }

  void ThrowFailure() {
    const std::lock_guard lock(mutex_);
    if (failure_) throw *failure_;
  }

  // Keeps the first failure, and frees ranks that wait for the failed one. What those throw then is a consequence.
  void Fail(int rank, ErrorCode code, const std::string& message) {
    {
      const std::lock_guard lock(mutex_);
      if (!failure_) {
        const bool is_ranks_own = code == ErrorCode::kInternal || code == ErrorCode::kRankFailed;
        failure_.emplace(is_ranks_own ? ErrorCode::kRankFailed : code,
                         is_ranks_own ? "rank " + std::to_string(rank) + " failed: " + message : message);
      }
    }
    AbortAll(code == ErrorCode::kCancelled ? code : ErrorCode::kRankFailed);
  }

  void AbortAll(ErrorCode code) {
    for (const auto& worker : workers_) worker->Abort(code);
  }

  const WorkerConfig config_;
  std::vector<std::unique_ptr<Worker>> workers_;

  std::mutex mutex_;
  std::optional<Error> failure_;  // guarded by mutex_

  ThreadPool ranks_;  // last: its threads use all of the above
};

}  // namespace

std::unique_ptr<Executor> CreateThreadExecutor(const WorkerConfig& config, int tensor_parallel_size, int64_t timeout_ms,
                                               WeightSource& weights, const std::function<void(double)>& on_progress,
                                               std::atomic<bool>& cancelled) {
  auto executor = std::make_unique<ThreadExecutor>(config, tensor_parallel_size, timeout_ms, cancelled);
  executor->Load(weights, on_progress);
  return executor;
}

}  // namespace heddle
