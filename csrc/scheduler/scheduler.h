// Decides what every step computes, and owns which KV-cache block belongs to whom. No tensors, no text, no threads.
//
// There is no prefill or decode phase. Each sequence has num_computed_tokens catching up with its tokens under one
// token budget a step; that one rule covers prompts cut into chunks, prefix-cache hits, preemption and decoding.
//
//   (1) Running sequences come first, in order of age (kFcfs) or of priority, then age (kPriority); then waiting ones
//       are admitted while budget, max_num_seqs and free blocks last.
//   (2) When a running sequence finds no block, the youngest (or least urgent) sequence that holds blocks gives all of
//       its own back and starts over from its tokens later. The oldest is never the victim of a younger one, so the
//       head of the line always makes progress.
//   (3) A request of n sequences prefills once: the others are forked from the first when its prompt is computed, and
//       share its full prompt blocks.
//   (4) What ends, ends once: blocks go back in the same call, and the id shows up in the next step's `finished`.
//
// Engine thread only.
#pragma once

#include <memory>
#include <vector>

#include "core/engine_config.h"
#include "core/model_output.h"
#include "core/scheduler_output.h"
#include "scheduler/request.h"

namespace heddle {

struct SchedulerStats {
  int num_running = 0;  // sequences
  int num_waiting = 0;
  int num_free_blocks = 0;   // including cached blocks that nobody uses
  int num_total_blocks = 0;  // without the null block
  int64_t prefix_cache_queries = 0;  // tokens looked up
  int64_t prefix_cache_hits = 0;     // tokens found
  int64_t num_preemptions = 0;
};

class Scheduler {
 public:
  // REQUIRES: (num_blocks - 1) * block_size >= max_model_len, so that any one sequence fits alone.
  explicit Scheduler(const SchedulerConfig& config);
  ~Scheduler();

  // Queues a request. Fails with kQueueFull when max_num_waiting requests wait already, changing nothing.
  void AddRequest(Request request);

  // The next step; empty when nothing can run (nothing there, or everything paused).
  SchedulerOutput Schedule();

  // Takes in what the step gave: one update for each sequence that got a token, prompt log-probabilities or an end, in
  // batch order. Sequences aborted since Schedule() are skipped.
  std::vector<SequenceUpdate> Update(const SchedulerOutput& step, const ModelOutput& output);

  // Ends one sequence for a reason that the scheduler cannot see, such as a stop string. Unknown ids are ignored.
  void FinishSequence(SequenceId id);

  // Ends all sequences of a request, waiting or running. Unknown ids are ignored.
  void AbortRequest(RequestId id);

  // A paused request keeps its blocks, unless someone needs them, but is not scheduled.
  void SetPaused(RequestId id, bool paused);

  // Whether any request is queued or running, paused ones included.
  bool HasRequests() const;

  // Forgets every cached prefix that nobody uses.
  void ResetPrefixCache();

  SchedulerStats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace heddle
