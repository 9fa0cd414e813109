// Fans each step out to all ranks and brings rank 0's answer back.
//
// Used by the engine thread; Cancel may be called by any thread. After a failure the executor is unusable: the group's
// collectives are aborted and every later call fails.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/engine_config.h"
#include "core/model_config.h"
#include "core/model_output.h"
#include "core/scheduler_output.h"

namespace heddle {

struct RankStats {
  int rank = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int64_t weight_bytes = 0;
  bool weights_from_cache = false;
  int64_t kv_cache_bytes = 0;
  double busy_seconds = 0;
  double ops_seconds = 0;            // of busy_seconds; disjoint from communication_seconds
  double communication_seconds = 0;  // of busy_seconds
  double device_wait_seconds = 0;    // of busy_seconds: the host waited for the GPU
  double device_idle_seconds = 0;    // between steps, with nothing to do on the GPU
};

class Executor {
 public:
  virtual ~Executor() = default;

  // How many steps may be submitted and not yet waited for. More than one: they run one after the other on a device
  // that goes on while the host prepares the next.
  virtual int max_steps_under_way() const = 0;

  // Begins a step. Fails with kRankFailed (a rank threw; the message says which and why), kCommTimeout, kCancelled;
  // also then only once every rank has returned, since a thread cannot be killed.
  virtual void Submit(const SchedulerOutput& step) = 0;

  // Blocks until the oldest step that was submitted and not waited for is done. Fails as Submit does.
  virtual ModelOutput Wait() = 0;

  // Abandons the step that runs now, or the next one.
  virtual void Cancel() = 0;

  virtual std::vector<RankStats> Stats() const = 0;
};

}  // namespace heddle
