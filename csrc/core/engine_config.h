// The engine's options after validation. Plain data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/device_type.h"
#include "base/dtype.h"
#include "base/nccl_options.h"
#include "base/quantization.h"

namespace heddle {

enum class SchedulingPolicy { kFcfs, kPriority };
enum class LoadFormat { kSafetensors, kDummy };
enum class CommunicatorType { kAuto, kLocal, kNccl };

struct SchedulerConfig {
  int max_num_seqs = 0;            // sequences in one step
  int max_num_batched_tokens = 0;  // token budget of one step
  int max_num_waiting = 0;         // bounded queue: beyond it, admission fails with kQueueFull
  int max_model_len = 0;
  int num_blocks = 0;
  int block_size = 0;
  bool enable_prefix_caching = true;
  SchedulingPolicy policy = SchedulingPolicy::kFcfs;
};

struct EngineConfig {
  std::string model;        // folder
  bool device_auto = true;  // GPUs if there are enough, else the CPU
  DeviceType device = DeviceType::kCpu;
  std::vector<int32_t> devices;         // GPU of each rank; empty: rank i takes device i, round and round
  double gpu_memory_utilization = 0.9;  // of each GPU, less what others use
  CommunicatorType communicator = CommunicatorType::kAuto;
  NcclOptions nccl;
  bool custom_all_reduce = true;  // on GPUs: small sums through peer memory, where ranks reach each other's
  LoadFormat load_format = LoadFormat::kSafetensors;
  std::string packed_weights;  // path with which the names of files with packed weights begin; "": none are kept
  Quantization quantization = Quantization::kAuto;
  Sparsity sparsity = Sparsity::kAuto;
  Provider provider = Provider::kHeddle;
  bool dtype_auto = true;  // dtype follows the checkpoint
  DType dtype = DType::kFloat32;
  bool kv_cache_dtype_auto = true;  // follows dtype
  DType kv_cache_dtype = DType::kFloat32;

  int64_t kv_cache_bytes = 0;  // all ranks together; 0: chosen
  int block_size = 16;
  int max_model_len = 0;           // 0: the model's
  int max_num_seqs = 0;            // 0: the device's default
  int max_num_batched_tokens = 0;  // 0: the device's default
  int max_num_waiting = 0;
  bool enable_prefix_caching = true;
  SchedulingPolicy scheduling_policy = SchedulingPolicy::kFcfs;
  uint64_t seed = 0;
  int max_logprobs = 20;  // of a request's logprobs and prompt_logprobs; -1: the vocabulary

  int tensor_parallel_size = 1;
  int threads_per_rank = 0;  // 0: the processors available over the ranks, at least 1
  int64_t comm_timeout_ms = 0;
  std::string cpu_isa;                 // "": the best
  std::vector<int32_t> eos_token_ids;  // beside those of config.json
};

}  // namespace heddle
