#include "engine/engine_plan.h"

#include <algorithm>

#include "base/file.h"
#include "base/rounding.h"
#include "comm/local_communicator.h"
#include "comm/peer_communicator.h"
#include "device/cuda_library.h"
#include "device/host_memory.h"

namespace heddle {
namespace {

constexpr int64_t kMaxDefaultKVCacheBytes = int64_t{4} << 30;
constexpr size_t kMaxConfigBytes = size_t{16} << 20;

Json ReadConfig(const std::string& folder) {
  const std::string path = folder + "/config.json";
  if (!PathExists(path)) {
    throw Error(ErrorCode::kModelFormat, "model must be a folder with a config.json, received " + folder);
  }
  return Json::Parse(ReadFile(path, kMaxConfigBytes), "config.json");
}

std::string Megabytes(int64_t bytes) { return std::to_string(CeilDiv(bytes, int64_t{1} << 20)) + " MiB"; }

// The caller has checked the options with better words; this keeps nonsense from going further.
void CheckOption(const char* key, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return;
  throw Error(ErrorCode::kInvalidArgument, std::string(key) + " must be an integer from " + std::to_string(min) +
                                               " to " + std::to_string(max) + ", received " + std::to_string(value));
}

void CheckOptions(const EngineConfig& config) {
  constexpr int64_t kMax = int64_t{1} << 30;
  CheckOption("maxNumSeqs", config.max_num_seqs, 0, kMax);
  CheckOption("maxNumBatchedTokens", config.max_num_batched_tokens, 0, kMax);
  CheckOption("maxNumWaiting", config.max_num_waiting, 1, kMax);
  CheckOption("maxModelLen", config.max_model_len, 0, kMax);
  CheckOption("kvCacheBytes", config.kv_cache_bytes, 0, int64_t{1} << 53);
  CheckOption("threads", config.threads_per_rank, 0, 1024);
  CheckOption("timeoutMs", config.comm_timeout_ms, 1, 3'600'000);
  const int size = config.tensor_parallel_size;
  if (size != 1 && size != 2 && size != 4 && size != 8) {
    throw Error(ErrorCode::kInvalidArgument,
                "tensorParallelSize must be 1, 2, 4 or 8, received " + std::to_string(size));
  }
  const int block = config.block_size;
  if (block != 16 && block != 32 && block != 64 && block != 128) {
    throw Error(ErrorCode::kInvalidArgument, "blockSize must be 16, 32, 64 or 128, received " + std::to_string(block));
  }
}

// The GPU of each rank, as the options have it. Fails with kInvalidArgument where there are not enough, or not such
// ones.
std::vector<int32_t> NamedDevices(const EngineConfig& config) {
  CudaApi();
  std::string reason;
  const int count = NumCudaDevices(&reason);
  if (count == 0) {
    throw Error(ErrorCode::kInvalidArgument, "device 'cuda' needs a GPU, but none can be used: " + reason);
  }
  const int size = config.tensor_parallel_size;
  std::vector<int32_t> devices = config.devices;
  if (devices.empty()) {
    if (size > count) {
      throw Error(ErrorCode::kInvalidArgument,
                  "parallel.tensorParallelSize must be at most the number of GPUs, " + std::to_string(count) +
                      ", unless parallel.devices lets ranks share them, received " + std::to_string(size));
    }
    for (int rank = 0; rank < size; ++rank) devices.push_back(rank);
  }
  if (static_cast<int>(devices.size()) != size) {
    throw Error(ErrorCode::kInvalidArgument, "parallel.devices must name one GPU for each of " + std::to_string(size) +
                                                 " ranks, received " + std::to_string(devices.size()));
  }
  for (const int32_t device : devices) {
    if (device >= 0 && device < count) continue;
    throw Error(ErrorCode::kInvalidArgument, "parallel.devices must name devices from 0 to " +
                                                 std::to_string(count - 1) + ", received " + std::to_string(device));
  }
  return devices;
}

// The GPU of each rank. Fails with kInvalidArgument, naming what is missing, where GPUs cannot serve `config`.
std::vector<int32_t> RequireGpus(const EngineConfig& config) {
  std::vector<int32_t> devices = NamedDevices(config);
  for (const int32_t device : devices) CheckCuda(CudaApi().device_check(device));
  int32_t nccl = 0;
  if (config.tensor_parallel_size > 1) CheckCuda(CudaApi().nccl_version(&nccl));
  if (config.provider == Provider::kBitsAndBytes) CheckCuda(CudaApi().bitsandbytes_check());
  return devices;
}

// None where GPUs cannot serve `config`.
std::vector<int32_t> GpusThatServe(const EngineConfig& config) {
  try {
    return RequireGpus(config);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kInvalidArgument) throw;
    return {};
  }
}

// The GPU of each rank, or none where ranks compute on the CPU. A GPU that was asked for and cannot serve is the
// caller's to mend.
std::vector<int32_t> ResolveDevices(const EngineConfig& config) {
  const bool nccl = config.communicator == CommunicatorType::kNccl;
  const bool local = config.communicator == CommunicatorType::kLocal && config.tensor_parallel_size > 1;
  const bool gpus_only = nccl || config.provider == Provider::kBitsAndBytes;
  if (config.device_auto && !gpus_only) return local ? std::vector<int32_t>() : GpusThatServe(config);
  if (config.device == DeviceType::kCpu && !config.device_auto) {
    if (!gpus_only) return {};
    throw Error(ErrorCode::kInvalidArgument,
                nccl ? "parallel.communicator must be 'local' on device 'cpu', received 'nccl'"
                     : "provider must be \"heddle\" on device 'cpu', received \"bitsandbytes\"");
  }
  if (local) {
    throw Error(ErrorCode::kInvalidArgument, "parallel.communicator must be 'nccl' on device 'cuda', received 'local'");
  }
  return RequireGpus(config);
}

// What the engine may take of a GPU.
int64_t AvailableDeviceMemory(int32_t device, double utilization) {
  HeddleCudaDeviceInfo info;
  CheckCuda(CudaApi().device_info(device, &info));
  const int64_t others = info.total_bytes - info.free_bytes;
  const auto share = static_cast<int64_t>(static_cast<double>(info.total_bytes) * utilization);
  return std::max<int64_t>(share - others, 0);
}

// The memories that ranks take from: each GPU's, or the host's.
std::vector<MemoryBudget> MemoriesOf(const EngineConfig& config, const WorkerConfig& worker) {
  std::vector<MemoryBudget> memories;
  for (int rank = 0; rank < config.tensor_parallel_size; ++rank) {
    const int32_t device = worker.device == DeviceType::kCuda ? worker.devices[static_cast<size_t>(rank)] : -1;
    auto it = std::find_if(memories.begin(), memories.end(),
                           [device](const MemoryBudget& memory) { return memory.device == device; });
    if (it == memories.end()) {
      it = memories.insert(
          it, {.device = device,
               .available_bytes =
                   device < 0 ? AvailableHostMemory() : AvailableDeviceMemory(device, config.gpu_memory_utilization),
               .ranks = {}});
    }
    it->ranks.push_back(rank);
  }
  return memories;
}

// How weights are kept. A GPU multiplies int8 and sparse weights by 16-bit activations only: where nothing was asked
// for but float32, they are widened.
WeightFormats ResolveFormats(const EngineConfig& config, DType dtype, bool on_gpu, const Json& json) {
  StoredQuantization stored = ParseStoredQuantization(json);
  if (!on_gpu || dtype != DType::kFloat32) {
    return WeightFormats(dtype, config.quantization, config.sparsity, std::move(stored), config.provider);
  }
  if (config.quantization != Quantization::kAuto && config.quantization != Quantization::kNone) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("quantization must be \"none\" in float32 on device 'cuda', received \"") +
                    QuantizationName(config.quantization) + "\"");
  }
  const Sparsity sparsity = config.sparsity == Sparsity::kAuto ? Sparsity::kNone : config.sparsity;
  return WeightFormats(dtype, Quantization::kNone, sparsity, std::move(stored), config.provider);
}

// The longest sequence that is served.
int ResolveMaxModelLen(const EngineConfig& config, const ModelConfig& model) {
  if (config.max_model_len == 0) return model.max_positions;
  if (config.max_model_len > model.max_positions) {
    throw Error(ErrorCode::kInvalidArgument, "maxModelLen must be at most the model's " +
                                                 std::to_string(model.max_positions) + " positions, received " +
                                                 std::to_string(config.max_model_len));
  }
  return config.max_model_len;
}

// What a rank keeps for collectives. On GPUs NCCL's own buffers come on top.
int64_t CommunicatorBytes(const WorkerConfig& worker, int tensor_parallel_size) {
  if (tensor_parallel_size == 1) return 0;
  if (worker.device == DeviceType::kCuda) {
    return worker.custom_all_reduce ? PeerCommunicatorBytes(tensor_parallel_size) : 0;
  }
  return LocalCommunicatorBytes(int64_t{worker.runner.max_num_batched_tokens} * worker.model.hidden_size);
}

// What a rank takes, for sequences of worker.runner.max_model_len and with a KV cache of one block.
RankPlan PlanRank(const WorkerConfig& worker, int rank, int size) {
  const TensorParallel tp{rank, size, nullptr};
  const ModelFootprint footprint = worker.family->footprint(worker.model, tp, worker.formats, worker.device);
  return {
      .weight_bytes = footprint.weight_bytes,
      .kv_cache_bytes = KVCache::BytesPerBlock(worker.kv_cache_dtype, worker.model.num_layers, worker.runner.block_size,
                                               footprint.num_kv_heads, worker.model.head_dim),
      .activation_bytes = ModelRunner::ActivationBytes(worker.model, worker.runner, tp,
                                                       ActivationDType(worker.device, worker.formats.dtype()),
                                                       footprint.activation_bytes_per_token) +
                          footprint.bytes_per_position * worker.runner.max_model_len +
                          (worker.device == DeviceType::kCuda ? Worker::kCudaWorkspaceBytes : 0) +
                          CommunicatorBytes(worker, size)};
}

// How many blocks fit into a memory beside what its ranks take otherwise, as far as the cache may fill it. While
// kv_cache_bytes of each rank is that of one block.
int64_t FittingBlocks(const EnginePlan& plan, const MemoryBudget& memory) {
  int64_t rest = memory.available_bytes;
  int64_t block_bytes = 0;
  for (const int rank : memory.ranks) {
    const RankPlan& rank_plan = plan.ranks[static_cast<size_t>(rank)];
    rest -= rank_plan.weight_bytes + rank_plan.activation_bytes;
    block_bytes += rank_plan.kv_cache_bytes;
  }
  rest = std::max<int64_t>(rest, 0);
  if (memory.device < 0) rest = std::min(kMaxDefaultKVCacheBytes, rest / 2);
  HEDDLE_CHECK(block_bytes > 0, "a memory without ranks");
  return rest / block_bytes;
}

// Blocks beside the null block, and max_model_len where it was left open.
void SizeKVCache(const EngineConfig& config, EnginePlan& plan) {
  SchedulerConfig& scheduler = plan.scheduler;
  const int64_t blocks_a_sequence = CeilDiv(scheduler.max_model_len, scheduler.block_size);
  const bool on_gpu = plan.worker.device == DeviceType::kCuda;
  const bool chosen = config.kv_cache_bytes == 0;
  int64_t block_bytes = 0;
  for (const RankPlan& rank : plan.ranks) block_bytes += rank.kv_cache_bytes;
  HEDDLE_CHECK(block_bytes > 0, "a plan without ranks");
  int64_t blocks = config.kv_cache_bytes / block_bytes - 1;
  if (chosen) {
    blocks = blocks_a_sequence * scheduler.max_num_seqs;
    for (const MemoryBudget& memory : plan.memories) blocks = std::min(blocks, FittingBlocks(plan, memory) - 1);
  }
  blocks = std::min<int64_t>(blocks, 1 << 24);
  if (blocks < blocks_a_sequence) {
    if (config.max_model_len > 0 || blocks < 1) {
      const std::string given = !chosen  ? "kvCacheBytes"
                                : on_gpu ? "what gpuMemoryUtilization leaves beside the weights"
                                         : "half of the memory that the weights leave available";
      const int64_t budget = chosen ? (blocks + 1) * block_bytes : config.kv_cache_bytes;
      throw Error(ErrorCode::kInsufficientMemory, given + " must hold one sequence of maxModelLen " +
                                                      std::to_string(scheduler.max_model_len) + ", that is " +
                                                      std::to_string((blocks_a_sequence + 1) * block_bytes) +
                                                      " bytes, received " + std::to_string(budget));
    }
    scheduler.max_model_len = static_cast<int>(blocks * scheduler.block_size);
  }
  scheduler.num_blocks = static_cast<int>(blocks + 1);
}

int64_t NeededBytes(const EnginePlan& plan, const MemoryBudget& memory) {
  int64_t needed = 0;
  for (const int rank : memory.ranks) needed += plan.ranks[static_cast<size_t>(rank)].total_bytes();
  return needed;
}

bool Fits(const EnginePlan& plan, const MemoryBudget& memory) {
  return NeededBytes(plan, memory) <= memory.available_bytes;
}

}  // namespace

int64_t EnginePlan::total_bytes() const {
  int64_t total = 0;
  for (const RankPlan& rank : ranks) total += rank.total_bytes();
  return total;
}

int64_t EnginePlan::available_bytes() const {
  int64_t available = 0;
  for (const MemoryBudget& memory : memories) available += memory.available_bytes;
  return available;
}

int64_t EnginePlan::kv_cache_bytes_per_token() const {
  int64_t total = 0;
  for (const RankPlan& rank : ranks) total += rank.kv_cache_bytes;
  return total / (int64_t{scheduler.num_blocks} * scheduler.block_size);
}

EnginePlan PlanEngine(const EngineConfig& config) {
  CheckOptions(config);
  const Json json = ReadConfig(config.model);
  EnginePlan plan;
  WorkerConfig& worker = plan.worker;
  worker.devices = ResolveDevices(config);
  const bool on_gpu = !worker.devices.empty();
  worker.device = on_gpu ? DeviceType::kCuda : DeviceType::kCpu;
  plan.memories = MemoriesOf(config, worker);
  const int max_num_seqs = config.max_num_seqs > 0 ? config.max_num_seqs : on_gpu ? 256 : 64;
  const int max_num_batched_tokens =
      config.max_num_batched_tokens > 0 ? config.max_num_batched_tokens : std::max(on_gpu ? 8192 : 256, max_num_seqs);
  if (max_num_batched_tokens < max_num_seqs) {
    throw Error(ErrorCode::kInvalidArgument, "maxNumBatchedTokens must be at least maxNumSeqs (" +
                                                 std::to_string(max_num_seqs) + "), received " +
                                                 std::to_string(max_num_batched_tokens));
  }

  worker.family = &FindModelFamily(json);
  worker.model = worker.family->parse_config(json);
  ModelConfig& model = worker.model;
  model.eos_token_ids.insert(model.eos_token_ids.end(), config.eos_token_ids.begin(), config.eos_token_ids.end());
  std::sort(model.eos_token_ids.begin(), model.eos_token_ids.end());
  model.eos_token_ids.erase(std::unique(model.eos_token_ids.begin(), model.eos_token_ids.end()),
                            model.eos_token_ids.end());
  const DType dtype = config.dtype_auto ? model.dtype : config.dtype;
  worker.formats = ResolveFormats(config, dtype, on_gpu, json);
  worker.kv_cache_dtype = config.kv_cache_dtype_auto ? dtype : config.kv_cache_dtype;
  worker.packed_weights = config.packed_weights;
  worker.nccl = config.nccl;
  worker.custom_all_reduce = config.custom_all_reduce;
  worker.timeout = std::chrono::milliseconds(config.comm_timeout_ms);
  worker.isa = ChooseCpuIsa(config.cpu_isa);
  const int processors = NumAvailableProcessors();
  worker.threads =
      config.threads_per_rank > 0 ? config.threads_per_rank : std::max(1, processors / config.tensor_parallel_size);
  worker.oversubscribed = worker.threads * config.tensor_parallel_size > processors;

  SchedulerConfig& scheduler = plan.scheduler;
  scheduler.max_num_seqs = max_num_seqs;
  scheduler.max_num_batched_tokens = max_num_batched_tokens;
  scheduler.max_num_waiting = config.max_num_waiting;
  scheduler.block_size = config.block_size;
  scheduler.enable_prefix_caching = config.enable_prefix_caching;
  scheduler.policy = config.scheduling_policy;
  scheduler.max_model_len = ResolveMaxModelLen(config, model);
  worker.runner = {max_num_seqs, max_num_batched_tokens, config.block_size, scheduler.max_model_len, worker.device};
  const auto plan_ranks = [&](int max_model_len) {
    worker.runner.max_model_len = max_model_len;
    plan.ranks.clear();
    for (int rank = 0; rank < config.tensor_parallel_size; ++rank) {
      plan.ranks.push_back(PlanRank(worker, rank, config.tensor_parallel_size));
    }
  };
  // A GPU fills in the tables of all positions at once; on CPU they come on top of the cache.
  plan_ranks(on_gpu ? scheduler.max_model_len : 0);
  SizeKVCache(config, plan);
  plan_ranks(scheduler.max_model_len);
  for (RankPlan& rank : plan.ranks) rank.kv_cache_bytes *= scheduler.num_blocks;
  worker.num_blocks = scheduler.num_blocks;
  worker.max_model_len = scheduler.max_model_len;
  return plan;
}

bool EnginePlan::fits() const {
  return std::all_of(memories.begin(), memories.end(),
                     [this](const MemoryBudget& memory) { return Fits(*this, memory); });
}

void CheckFits(const EnginePlan& plan) {
  for (const MemoryBudget& memory : plan.memories) {
    if (Fits(plan, memory)) continue;
    int64_t weights = 0;
    int64_t kv_cache = 0;
    for (const int rank : memory.ranks) {
      weights += plan.ranks[static_cast<size_t>(rank)].weight_bytes;
      kv_cache += plan.ranks[static_cast<size_t>(rank)].kv_cache_bytes;
    }
    const std::string where = memory.device < 0 ? "" : " of device " + std::to_string(memory.device);
    throw Error(ErrorCode::kInsufficientMemory,
                "the model needs " + Megabytes(NeededBytes(plan, memory)) + " (weights " + Megabytes(weights) +
                    ", KV cache " + Megabytes(kv_cache) + "), but only " + Megabytes(memory.available_bytes) +
                    " of memory" + where + " are available");
  }
}

}  // namespace heddle
