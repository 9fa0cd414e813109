#include "scheduler/request_queue.h"

#include <algorithm>
#include <string>

#include "base/error.h"

namespace heddle {
namespace {

bool CanRun(const Sequence& sequence) {
  return sequence.status == SequenceStatus::kRunning && !sequence.request->paused;
}

bool CanBeAdmitted(const Sequence& sequence) {
  return sequence.status == SequenceStatus::kWaiting && !sequence.request->paused;
}

}  // namespace

void RequestQueue::Insert(Sequence& sequence) {
  ++(sequence.status == SequenceStatus::kRunning ? num_running_ : num_waiting_);
  if (!sequence.blocks.empty()) holders_.insert(&sequence);
  if (CanBeAdmitted(sequence)) waiting_.insert(&sequence);
  if (CanRun(sequence)) {
    running_.insert(std::lower_bound(running_.begin(), running_.end(), &sequence, ByOrder()), &sequence);
  }
}

void RequestQueue::Remove(Sequence& sequence) {
  --(sequence.status == SequenceStatus::kRunning ? num_running_ : num_waiting_);
  if (!sequence.blocks.empty()) holders_.erase(&sequence);
  if (CanBeAdmitted(sequence)) waiting_.erase(&sequence);
  if (CanRun(sequence)) {
    const auto it = std::lower_bound(running_.begin(), running_.end(), &sequence, ByOrder());
    HEDDLE_CHECK(it != running_.end() && *it == &sequence, "sequence " + std::to_string(sequence.id));
    running_.erase(it);
  }
}

void RequestQueue::CheckConsistency(const std::vector<Sequence*>& sequences) const {
  int num_running = 0;
  size_t num_runnable = 0;
  size_t num_admissible = 0;
  size_t num_holding = 0;
  for (Sequence* sequence : sequences) {
    const bool listed = std::binary_search(running_.begin(), running_.end(), sequence, ByOrder());
    const std::string name = "sequence " + std::to_string(sequence->id);
    HEDDLE_CHECK(listed == CanRun(*sequence), name);
    HEDDLE_CHECK(waiting_.count(sequence) == (CanBeAdmitted(*sequence) ? 1u : 0u), name);
    HEDDLE_CHECK(holders_.count(sequence) == (sequence->blocks.empty() ? 0u : 1u), name);
    num_running += sequence->status == SequenceStatus::kRunning;
    num_runnable += CanRun(*sequence);
    num_admissible += CanBeAdmitted(*sequence);
    num_holding += !sequence->blocks.empty();
  }
  HEDDLE_CHECK(num_runnable == running_.size() && num_admissible == waiting_.size() && num_holding == holders_.size(),
               "a list names a sequence that ended");
  HEDDLE_CHECK(num_running == num_running_ && num_running + num_waiting_ == static_cast<int>(sequences.size()),
               std::to_string(num_running_) + " running, " + std::to_string(num_waiting_) + " waiting");
}

}  // namespace heddle
