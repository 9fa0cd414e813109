// Every open sequence in its place: who runs, who waits, and who would lose its blocks first.
//
// A sequence's place follows from its status, its blocks and its request's `paused`. Whatever changes one of these
// removes the sequence first and inserts it again after. A preempted sequence so returns to its old place in the line.
// Owns nothing. Engine thread only.
#pragma once

#include <set>
#include <vector>

#include "scheduler/sequence.h"

namespace heddle {

class RequestQueue {
 public:
  void Insert(Sequence& sequence);

  // REQUIRES: inserted, and nothing that decides its place changed since.
  void Remove(Sequence& sequence);

  // Running and not paused, in order.
  const std::vector<Sequence*>& running() const { return running_; }

  // The next to admit: the first of those that wait, are not paused, and whose prompt no other sequence computes for
  // them. Null when there is none.
  Sequence* NextWaiting() const { return waiting_.empty() ? nullptr : *waiting_.begin(); }

  // The first to lose its blocks: the last in order of the paused ones that hold any, or else of all. Null when nobody
  // holds blocks.
  Sequence* LastHolder() const { return holders_.empty() ? nullptr : *holders_.rbegin(); }
  size_t num_holders() const { return holders_.size(); }

  int num_running() const { return num_running_; }  // paused ones included
  int num_waiting() const { return num_waiting_; }  // forks and paused ones included

  // Fails with kInternal unless every one of `sequences`, and nothing else, is in its place. For tests.
  void CheckConsistency(const std::vector<Sequence*>& sequences) const;

 private:
  struct ByOrder {
    bool operator()(const Sequence* a, const Sequence* b) const { return a->order < b->order; }
  };
  struct ByClaim {
    bool operator()(const Sequence* a, const Sequence* b) const {
      if (a->request->paused != b->request->paused) return b->request->paused;
      return a->order < b->order;
    }
  };

  std::vector<Sequence*> running_;
  std::set<Sequence*, ByOrder> waiting_;
  std::set<Sequence*, ByClaim> holders_;
  int num_running_ = 0;
  int num_waiting_ = 0;
};

}  // namespace heddle
