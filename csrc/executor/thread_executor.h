// Ranks as threads of this process. Rank 0 runs on the calling thread, so that a lone rank costs no hand-over; others
// wait for steps on threads of their own, spinning briefly before they park.
#pragma once

#include <atomic>

#include "executor/executor.h"
#include "worker/worker.h"

namespace heddle {

// Builds the group and loads every rank's shard at the same time. `config` is copied. `on_progress` gets the fraction
// of weight bytes packed, from any rank's thread, ascending. `cancelled` outlives the executor: set, it makes loading
// and steps fail with kCancelled. Fails as Worker::Load does, with the first failing rank's error.
std::unique_ptr<Executor> CreateThreadExecutor(const WorkerConfig& config, int tensor_parallel_size, int64_t timeout_ms,
                                               WeightSource& weights, const std::function<void(double)>& on_progress,
                                               std::atomic<bool>& cancelled);

}  // namespace heddle
