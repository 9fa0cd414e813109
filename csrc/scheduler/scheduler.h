// Decides what every step computes, and owns which KV-cache block belongs to whom. No tensors, no text, no threads.
//
// There is no prefill or decode phase. Each sequence has num_computed_tokens catching up with its tokens under one
// token budget a step; that one rule covers prompts cut into chunks, prefix-cache hits, preemption and decoding.
//
//   (1) Running sequences come first, in order of age (kFcfs) or of priority, then age (kPriority); then waiting ones
//       are admitted while budget, max_num_seqs and free blocks last. A long prompt takes what budget is left, but for
//       one token of each running sequence after it.
//   (2) When a running sequence finds no block, the youngest (or least urgent) sequence that holds blocks gives all of
//       its own back and starts over from its tokens later; paused sequences give theirs first. It may be the needy
//       sequence itself. The oldest is never the victim of a younger one, so the head of the line always progresses.
//   (3) A waiting sequence is admitted when all its tokens fit into free blocks with one to spare for each running
//       sequence to grow into, and not in a step in which a running sequence found no block: so what is admitted is
//       seldom preempted soon. It waits for running sequences, but takes the blocks of paused ones.
//   (4) A request of n sequences prefills once: the others are forked from the first when its prompt is computed, and
//       share its full prompt blocks. If the first ends before that, the next takes its part.
//   (5) What ends, ends once: blocks go back in the same call, and the id shows up in the next step's `finished`.
//   (6) A full block can be found as a prefix once all its tokens are computed, generated ones too. Requests with
//       skip_reading_prefix_cache, or that ask for prompt log-probabilities, look nothing up but leave theirs.
//
// kFcfs starves nobody, but a short prompt waits until older ones are computed. kPriority does by intent: while more
// urgent requests keep coming, less urgent ones wait.
//
// Use: Schedule(), compute, Update(), and again. A device that computes steps strictly one after the other may be given
// the next one ahead: a second Schedule() before the Update() of the first. A sequence's pending token, which the first
// step samples, is then the last that the second computes; what ends a sequence in the first shows too late, and its
// part of the second is dropped. Blocks freed meanwhile are handed out again at once, which that order makes safe.
// Elsewhere no Schedule() comes before all ranks are done with the step.
//
// Engine thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/engine_config.h"
#include "core/model_output.h"
#include "core/scheduler_output.h"
#include "scheduler/kv_cache_manager.h"
#include "scheduler/request.h"
#include "scheduler/request_queue.h"
#include "scheduler/sequence.h"

namespace heddle {

struct SchedulerStats {
  int num_running = 0;               // sequences, paused ones included
  int num_waiting = 0;               // sequences, forks and paused ones included
  int num_free_blocks = 0;           // including cached blocks that nobody uses
  int num_total_blocks = 0;          // without the null block
  int64_t prefix_cache_queries = 0;  // prompt tokens looked up, once a request
  int64_t prefix_cache_hits = 0;     // of these, found
  int64_t num_preemptions = 0;
};

class Scheduler {
 public:
  // REQUIRES: (num_blocks - 1) * block_size >= max_model_len, so that any one sequence fits alone; all limits positive.
  explicit Scheduler(const SchedulerConfig& config);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Queues a request. Fails, changing nothing, with kQueueFull when max_num_waiting requests wait of which no sequence
  // was ever admitted, with kInvalidArgument when the prompt is empty or leaves no room in max_model_len, or when n or
  // max_tokens is not positive, and with std::bad_alloc.
  void AddRequest(Request request);

  // The next step; empty when nothing can run (nothing there, or everything paused). An empty step need not be computed
  // or taken in: its `finished` is empty too.
  SchedulerOutput Schedule();

  // Whether Schedule may be called before the step under way was taken in: not while that samples a token which the
  // choice of the next depends on.
  bool MayScheduleAhead() const;

  // Takes in what the oldest step under way gave: one update for each sequence that got a token, prompt
  // log-probabilities or an end, in batch order. Sequences that ended since Schedule() are skipped. A sequence with a
  // failure ends with kError; when its logits are invalid, the blocks that it computed are no longer found as a prefix.
  std::vector<SequenceUpdate> Update(const SchedulerOutput& step, ModelOutput output);

  // Ends one sequence for a reason that the scheduler cannot see, such as a stop string. Unknown ids are ignored.
  void FinishSequence(SequenceId id);

  // Ends all sequences of a request, waiting or running. Unknown ids are ignored.
  void AbortRequest(RequestId id);

  // A paused request keeps its blocks, unless someone needs them, but is not scheduled and does not count towards
  // max_num_seqs. A step that is being computed is still taken in. Unknown ids are ignored.
  void SetPaused(RequestId id, bool paused);

  // Whether any request is queued or running, paused ones included.
  bool HasRequests() const { return !requests_.empty(); }

  // Forgets every cached prefix that nobody uses.
  void ResetPrefixCache() { kv_cache_.ResetPrefixCache(); }

  SchedulerStats stats() const;

  // Fails with kInternal unless every list, block and reference is accounted for. Walks everything: for tests.
  void CheckConsistency() const;

 private:
  bool ScheduleRunning(SchedulerOutput& step);
  void AdmitWaiting(SchedulerOutput& step);
  bool MakeRoomToAdmit(const Sequence& sequence, std::span<const BlockId> prefix, const SchedulerOutput& step);
  void Admit(Sequence& sequence, std::span<const BlockId> prefix, SchedulerOutput& step);
  void Preempt(Sequence& sequence);
  int BudgetedTokens(const Sequence& sequence, const SchedulerOutput& step, int num_reserved) const;
  bool EndsUnderWay(const Sequence& sequence) const;
  void AppendScheduled(Sequence& sequence, int num_tokens, SchedulerOutput& step);

  void TakeIn(Sequence& sequence, const ScheduledSequence& scheduled, SequenceOutput& result,
              std::vector<SequenceUpdate>& updates);
  void Settle(Sequence& sequence, SequenceFailure failure);
  void AppendToken(Sequence& sequence, SequenceOutput& result, SequenceUpdate& update);
  void ForkOthers(const Sequence& leader);
  void Finish(Sequence& sequence);
  void PromoteFork(RequestState& request);
  Sequence* FindSequence(SequenceId id) const;

  const SchedulerConfig config_;
  KVCacheManager kv_cache_;
  std::unordered_map<RequestId, std::unique_ptr<RequestState>> requests_;
  std::unordered_map<SequenceId, Sequence*> sequences_;
  RequestQueue queue_;
  std::vector<SequenceId> finished_;  // to be reported with the next step
  SequenceId last_sequence_id_ = 0;
  uint64_t last_arrival_ = 0;
  int num_queued_requests_ = 0;  // of which no sequence was ever admitted
  int num_steps_under_way_ = 0;  // scheduled and not taken in
  int64_t prefix_cache_queries_ = 0;
  int64_t prefix_cache_hits_ = 0;
  int64_t num_preemptions_ = 0;
};

}  // namespace heddle
