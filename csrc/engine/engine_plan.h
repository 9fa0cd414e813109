// From options and config.json to what will be loaded: shapes, formats, sizes. Nothing is loaded to know it.
#pragma once

#include "core/engine_config.h"
#include "worker/worker.h"

namespace heddle {

struct RankPlan {
  int64_t weight_bytes = 0;
  int64_t kv_cache_bytes = 0;
  int64_t activation_bytes = 0;

  int64_t total_bytes() const { return weight_bytes + kv_cache_bytes + activation_bytes; }
};

// A memory that ranks share, the host's or a GPU's, and what they may take of it.
struct MemoryBudget {
  int32_t device = -1;  // -1: the host
  int64_t available_bytes = 0;
  std::vector<int> ranks;
};

struct EnginePlan {
  WorkerConfig worker;
  SchedulerConfig scheduler;
  std::vector<RankPlan> ranks;
  std::vector<MemoryBudget> memories;

  int64_t total_bytes() const;  // of all ranks together, as the next
  int64_t available_bytes() const;
  bool fits() const;  // every memory has room for its ranks
  int64_t kv_cache_tokens() const { return int64_t{scheduler.num_blocks - 1} * scheduler.block_size; }
  int64_t kv_cache_bytes_per_token() const;  // of all ranks together
};

// Reads `<model>/config.json`.
//
// A KV cache that is not given holds max_num_seqs sequences of max_model_len, but on CPU takes 4 GiB at most and half
// of what memory the weights leave, and on GPUs what gpu_memory_utilization leaves. A max_model_len that is not given
// is the checkpoint's, or what the KV cache holds if that is less.
//
// Fails with kModelFormat, kUnsupportedModel; kInvalidArgument (an option that the model cannot have, such as
// max_model_len beyond its positions); kInsufficientMemory when a given KV cache cannot hold one sequence of
// max_model_len.
EnginePlan PlanEngine(const EngineConfig& config);

// Fails with kInsufficientMemory, with figures, when the plan does not fit into the memory available.
void CheckFits(const EnginePlan& plan);

}  // namespace heddle
