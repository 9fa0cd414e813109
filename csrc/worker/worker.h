// One rank: a device with its stream, its shard of the model, its KV cache, and the runner over them.
//
// Constructed on any thread; Load, Submit and Wait on the rank's own thread. Nothing is shared between workers but the
// weight source, the communicator group and the cancellation flag.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "base/device_type.h"
#include "comm/tensor_parallel.h"
#include "core/engine_config.h"
#include "core/model_config.h"
#include "models/registry.h"
#include "worker/model_runner.h"

namespace heddle {

// What a rank needs to know; alike for all ranks.
struct WorkerConfig {
  ModelConfig model;
  const ModelFamily* family = nullptr;
  WeightFormats formats{DType::kFloat32};
  DType kv_cache_dtype = DType::kFloat32;
  DeviceType device = DeviceType::kCpu;
  std::vector<int32_t> devices;   // of each rank, on GPUs
  NcclOptions nccl;               // of ranks on GPUs
  bool custom_all_reduce = true;  // as in EngineConfig
  std::string packed_weights;     // as in EngineConfig; CPU only
  int max_model_len = 0;
  int num_blocks = 0;
  ModelRunner::Options runner;
  int threads = 1;
  bool oversubscribed = false;
  CpuIsa isa = CpuIsa::kScalar;
  std::chrono::milliseconds timeout = std::chrono::hours(1);  // of a wait for a GPU
};

// Read by any thread; a snapshot need not be consistent across fields.
struct WorkerStats {
  std::atomic<int64_t> busy_ns{0};
  std::atomic<int64_t> ops_ns{0};            // of busy_ns; disjoint from communication_ns
  std::atomic<int64_t> communication_ns{0};  // of busy_ns
  std::atomic<int64_t> device_wait_ns{0};    // of busy_ns; on a GPU's rank 0, as device_idle_ns
  std::atomic<int64_t> device_idle_ns{0};
  std::atomic<int64_t> weight_bytes{0};
  std::atomic<bool> weights_from_cache{false};
  std::atomic<int64_t> kv_cache_bytes{0};
  std::atomic<int> num_heads{0};
  std::atomic<int> num_kv_heads{0};
};

class Worker {
 public:
  // `config` and `cancelled` outlive this.
  Worker(const WorkerConfig& config, int rank, int size, std::unique_ptr<Communicator> communicator,
         const std::atomic<bool>& cancelled);
  ~Worker();

  // Loads this rank's shard; `on_packed` gets the bytes of each matrix done. Where packed weights are kept and the file
  // is not there or not right, writes it, or goes on without when that fails. Fails with kModelFormat,
  // kInsufficientMemory, kCancelled.
  void Load(WeightSource& weights, const std::function<void(int64_t)>& on_packed);

  // REQUIRES: Load succeeded. As ModelRunner::Submit, Wait and CheckDevice.
  void Submit(const SchedulerOutput& step);
  ModelOutput Wait(const std::function<void()>& check);
  void CheckDevice() const { runner_->CheckDevice(); }

  // Gives up what Load made, the communicator excepted: no rank's may go while another has graphs of its collectives.
  void Unload();

  // Any thread: makes this rank's pending and future collectives fail.
  void Abort(ErrorCode code);

  const WorkerStats& stats() const { return stats_; }

  // Device memory that the ops of a GPU's rank work in.
  static constexpr int64_t kCudaWorkspaceBytes = int64_t{256} << 20;

 private:
  std::unique_ptr<CudaStream> CreateCudaStream() const;

  const WorkerConfig& config_;
  const std::atomic<bool>& cancelled_;
  WorkerStats stats_;
  std::unique_ptr<Communicator> communicator_;
  TensorParallel tp_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<CausalLM> model_;
  std::unique_ptr<KVCache> kv_cache_;
  std::unique_ptr<ModelRunner> runner_;
};

}  // namespace heddle
