// Collectives among the ranks of one tensor-parallel group.
//
// One Communicator object a rank, used by that rank's thread only. Calls are collective: every rank makes the same
// calls in the same order with the same shapes. Each wait has a deadline. Sums are joined in a balanced binary tree
// over ranks, so that with the subtrees each rank computes the total does not depend on the number of ranks.
//
// On a GPU a collective is launched like an op, and how it ended is known once the stream was waited for: CheckHealth.
//
// Fails with kCommTimeout when a peer misses the deadline, and with kCancelled or kRankFailed (as given to Abort) once
// the group was aborted. After any failure the group is unusable.
#pragma once

#include "base/error.h"
#include "device/stream.h"
#include "tensor/tensor.h"

namespace heddle {

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;  // 1, 2, 4 or 8

  // Comes before all collectives: the rank's stream, which outlives them. Itself collective.
  virtual void Connect(Stream&) {}

  // x = sum over ranks of x, in place and bit-identical on every rank. [rows, size] f32, or
  // T on a GPU; rows may be strided on CPU.
  virtual void AllReduceSum(const TensorView& x) = 0;

  // residual += sum over ranks of x, then y = RmsNorm(residual), which ops::AddRmsNorm describes, in one go. False, on
  // every rank alike and with nothing done, where AllReduceSum and ops::AddRmsNorm one after the other are the way. x
  // is unspecified afterwards, unless it is y.
  virtual bool TryAllReduceAddRmsNorm(const TensorView& /*x*/, const TensorView& /*residual*/,
                                      const TensorView& /*weight*/, float /*epsilon*/, const TensorView& /*y*/) {
    return false;
  }

  // On `root`, out[:, column of r ..) = x of rank r for every rank, in rank order; elsewhere `out` is ignored. Column
  // counts may differ between ranks and add up to out.dim(1). x [rows, columns_r] f32, out [rows, columns] f32.
  virtual void GatherColumns(const TensorView& x, int root, const TensorView& out) = 0;

  // x of `root` to every rank. On a GPU only; x contiguous, of any type.
  virtual void Broadcast(const TensorView&, int /*root*/) { HEDDLE_CHECK(false, "not on this device"); }

  virtual void Barrier() = 0;

  // Comes around what a rank does for the first time and any device might wait for: until the other ranks that share
  // its device are here too, and nothing runs there. Itself collective.
  virtual void Quiesce() {}

  // Fails where a collective that was launched did. Any thread of the rank; before Connect all is well.
  virtual void CheckHealth() {}

  // Makes every present and future call of every rank fail with `code`. The only call that any thread may make.
  virtual void Abort(ErrorCode code) = 0;
};

}  // namespace heddle
