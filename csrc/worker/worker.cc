#include "worker/worker.h"

#include <chrono>
#include <optional>

namespace heddle {
namespace {

using Clock = std::chrono::steady_clock;

int64_t NanosecondsSince(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count();
}

// Adds the time spent in collectives, waiting included, to a counter.
class TimedCommunicator : public Communicator {
 public:
  TimedCommunicator(std::unique_ptr<Communicator> inner, std::atomic<int64_t>& nanoseconds)
      : inner_(std::move(inner)), nanoseconds_(nanoseconds) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  void AllReduceSum(const TensorView& x) override {
    Timed([&] { inner_->AllReduceSum(x); });
  }
  bool TryAllReduceAddRmsNorm(const TensorView& x, const TensorView& residual, const TensorView& weight, float epsilon,
                              const TensorView& y) override {
    bool done = false;
    Timed([&] { done = inner_->TryAllReduceAddRmsNorm(x, residual, weight, epsilon, y); });
    return done;
  }
  void GatherColumns(const TensorView& x, int root, const TensorView& out) override {
    Timed([&] { inner_->GatherColumns(x, root, out); });
  }
  void Broadcast(const TensorView& x, int root) override {
    Timed([&] { inner_->Broadcast(x, root); });
  }
  void Barrier() override {
    Timed([&] { inner_->Barrier(); });
  }
  void Connect(Stream& stream) override { inner_->Connect(stream); }
  void Quiesce() override { inner_->Quiesce(); }
  void CheckHealth() override { inner_->CheckHealth(); }
  void Abort(ErrorCode code) override { inner_->Abort(code); }

 private:
  template <typename Call>
  void Timed(const Call& call) {
    const Clock::time_point start = Clock::now();
    call();
    nanoseconds_.fetch_add(NanosecondsSince(start), std::memory_order_relaxed);
  }

  std::unique_ptr<Communicator> inner_;
  std::atomic<int64_t>& nanoseconds_;
};

// Adds its lifetime to a rank's busy time.
class BusyTime {
 public:
  BusyTime(const Stream& stream, WorkerStats& stats) : stream_(stream), stats_(stats) {}
  ~BusyTime() {
    stats_.busy_ns.fetch_add(NanosecondsSince(start_), std::memory_order_relaxed);
    stats_.ops_ns.store(stream_.op_time().count(), std::memory_order_relaxed);
  }
  BusyTime(const BusyTime&) = delete;
  BusyTime& operator=(const BusyTime&) = delete;

 private:
  const Stream& stream_;
  WorkerStats& stats_;
  const Clock::time_point start_ = Clock::now();
};

// The file of this rank. Its name is also in it, so that a file that was renamed is not taken for another.
std::optional<WeightCache> OpenCache(const WorkerConfig& config, const TensorParallel& tp) {
  if (config.packed_weights.empty() || config.device != DeviceType::kCpu) return std::nullopt;
  const std::string path = config.packed_weights + "-" + config.formats.Name() + "-" + std::to_string(tp.rank) + "of" +
                           std::to_string(tp.size) + ".packed";
  const std::string name = path.substr(path.rfind('/') + 1);
  return WeightCache(path, name + " in layout " + std::to_string(kPackedLayoutVersion));
}

}  // namespace

Worker::Worker(const WorkerConfig& config, int rank, int size, std::unique_ptr<Communicator> communicator,
               const std::atomic<bool>& cancelled)
    : config_(config),
      cancelled_(cancelled),
      communicator_(size == 1 ? std::move(communicator)
                              : std::make_unique<TimedCommunicator>(std::move(communicator), stats_.communication_ns)),
      tp_{rank, size, communicator_.get()} {}

// A communicator's stream outlives it.
Worker::~Worker() {
  Unload();
  communicator_.reset();
}

void Worker::Load(WeightSource& weights, const std::function<void(int64_t)>& on_packed) {
  // Made here, on the rank's own thread, so that pages lie where the rank runs.
  stream_ = std::make_unique<Stream>(config_.threads, config_.oversubscribed, config_.isa, CreateCudaStream());
  CudaStream* const cuda = stream_->cuda();
  communicator_->Connect(*stream_);
  const ModelConfig& model = config_.model;
  const ModelFootprint footprint = config_.family->footprint(model, tp_, config_.formats, config_.device);
  if (cuda != nullptr) cuda->Reserve(static_cast<size_t>(footprint.weight_bytes));
  std::optional<WeightCache> cache = OpenCache(config_, tp_);
  std::optional<WeightUploader> uploader;
  if (cuda != nullptr) uploader.emplace(*stream_, cancelled_);
  HostSlab slab;
  const BuildContext context{.tp = tp_,
                             .weights = weights,
                             .cache = cache ? &*cache : nullptr,
                             .uploader = uploader ? &*uploader : nullptr,
                             .formats = config_.formats,
                             .memory = cuda != nullptr ? static_cast<Allocator&>(*cuda) : slab,
                             .stream = *stream_,
                             .on_packed = on_packed,
                             .cancelled = cancelled_};
  model_ = config_.family->build(context, model, config_.max_model_len);

  kv_cache_ = std::make_unique<KVCache>(config_.kv_cache_dtype, model.num_layers, config_.num_blocks,
                                        config_.runner.block_size, footprint.num_kv_heads, model.head_dim, cuda);
  runner_ = std::make_unique<ModelRunner>(model, config_.runner, tp_, *stream_, *model_, *kv_cache_,
                                          ActivationDType(config_.device, config_.formats.dtype()),
                                          footprint.activation_bytes_per_token, cancelled_);
  if (cuda != nullptr) cuda->Synchronize();
  stats_.weight_bytes = static_cast<int64_t>(model_->weight_bytes());
  stats_.kv_cache_bytes =
      config_.num_blocks * KVCache::BytesPerBlock(config_.kv_cache_dtype, model.num_layers, config_.runner.block_size,
                                                  footprint.num_kv_heads, model.head_dim);
  stats_.num_heads = footprint.num_heads;
  stats_.num_kv_heads = footprint.num_kv_heads;
  stats_.weights_from_cache = cache && cache->complete();
  if (cache && !cache->complete()) cache->Save(cancelled_);
}

std::unique_ptr<CudaStream> Worker::CreateCudaStream() const {
  if (config_.device == DeviceType::kCpu) return nullptr;
  // A rank that fails keeps the others' collectives waiting: the communicator knows before the time limit does.
  return std::make_unique<CudaStream>(
      config_.devices[static_cast<size_t>(tp_.rank)], kCudaWorkspaceBytes,
      WaitLimits{&cancelled_, config_.timeout, [this] { communicator_->CheckHealth(); }});
}

void Worker::Submit(const SchedulerOutput& step) {
  const BusyTime busy(*stream_, stats_);
  runner_->Submit(step);
}

ModelOutput Worker::Wait(const std::function<void()>& check) {
  const BusyTime busy(*stream_, stats_);
  ModelOutput output = runner_->Wait(check);
  stats_.device_wait_ns.store(runner_->wait_time().count(), std::memory_order_relaxed);
  stats_.device_idle_ns.store(runner_->idle_time().count(), std::memory_order_relaxed);
  return output;
}

void Worker::Unload() {
  runner_.reset();
  kv_cache_.reset();
  model_.reset();
}

void Worker::Abort(ErrorCode code) { communicator_->Abort(code); }

}  // namespace heddle
