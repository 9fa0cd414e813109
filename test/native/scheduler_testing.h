// A scheduler with a model that answers at once: what tests of the scheduler drive.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <vector>

#include "scheduler/scheduler.h"

namespace heddle::test {

constexpr int kBlockSize = 4;

// Roomy; a test narrows what it is about.
inline SchedulerConfig RoomyConfig() {
  SchedulerConfig config;
  config.max_num_seqs = 16;
  config.max_num_batched_tokens = 64;
  config.max_num_waiting = 16;
  config.max_model_len = 64;
  config.num_blocks = 65;
  config.block_size = kBlockSize;
  return config;
}

// Prompts of different ids share no prefix.
inline Request MakeRequest(RequestId id, int prompt_len, int max_tokens) {
  Request request;
  request.id = id;
  request.prompt_token_ids.resize(static_cast<size_t>(prompt_len));
  std::iota(request.prompt_token_ids.begin(), request.prompt_token_ids.end(), static_cast<int32_t>(id) * 1000);
  request.sampling_params.max_tokens = max_tokens;
  return request;
}

class SchedulerDriver {
 public:
  explicit SchedulerDriver(const SchedulerConfig& config) : scheduler(config) {}

  const SchedulerOutput& Schedule() {
    step = scheduler.Schedule();
    scheduler.CheckConsistency();
    for (const NewSequenceData& sequence : step.new_sequences) requests_[sequence.id] = sequence.request_id;
    return step;
  }

  // Every sequence that samples gets `token`.
  const std::vector<SequenceUpdate>& Update() {
    ModelOutput output;
    for (const ScheduledSequence& scheduled : step.scheduled) {
      SequenceOutput& sequence = output.sequences.emplace_back();
      sequence.id = scheduled.id;
      sequence.sampled = scheduled.samples;
      sequence.token_id = scheduled.samples ? token(scheduled.id) : 0;
      if (edit) edit(sequence);
    }
    updates = scheduler.Update(step, std::move(output));
    scheduler.CheckConsistency();
    return updates;
  }

  const std::vector<SequenceUpdate>& Step() {
    Schedule();
    return Update();
  }

  void Steps(int count) {
    for (int i = 0; i < count; ++i) Step();
  }

  // Steps until nothing can run; the number of steps.
  int Drain() {
    int count = 0;
    while (!Schedule().empty() && count < 10000) {
      Update();
      ++count;
    }
    return count;
  }

  // The requests of the step's sequences, in batch order.
  std::vector<RequestId> Scheduled() const {
    std::vector<RequestId> ids;
    for (const ScheduledSequence& scheduled : step.scheduled) ids.push_back(requests_.at(scheduled.id));
    return ids;
  }

  // How many tokens each of the step's sequences computes, in batch order.
  std::vector<int> ScheduledTokens() const {
    std::vector<int> counts;
    for (const ScheduledSequence& scheduled : step.scheduled) counts.push_back(scheduled.num_scheduled_tokens);
    return counts;
  }

  bool EverythingFree() const {
    const SchedulerStats stats = scheduler.stats();
    return !scheduler.HasRequests() && stats.num_free_blocks == stats.num_total_blocks && stats.num_running == 0 &&
           stats.num_waiting == 0;
  }

  Scheduler scheduler;
  SchedulerOutput step;
  std::vector<SequenceUpdate> updates;
  std::function<int32_t(SequenceId)> token = [](SequenceId) { return 1; };
  std::function<void(SequenceOutput&)> edit;

 private:
  std::map<SequenceId, RequestId> requests_;
};

}  // namespace heddle::test
