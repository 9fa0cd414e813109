// All-reduce of small messages in one kernel: every rank sends its part to all ranks, and each sums all parts. See the
// table's functions of the same names.
//
// Kernels of ranks that share a device wait for each other, so all of them must be resident at once: together they have
// at most kMaxPeerBlocks blocks, and they let the kernel behind them start only when they have stopped waiting, for its
// blocks could take the places that a peer's kernel needs.
#pragma once

#include "comm/peer_group.h"

namespace heddle::cuda {

void OneShotAllReduceSum(HeddleCudaStream& stream, HeddleCudaPeerGroup& group, int rank, const HeddleCudaMatrix& x);
void OneShotAllReduceAddRmsNorm(HeddleCudaStream& stream, HeddleCudaPeerGroup& group, int rank,
                                const HeddleCudaAddRmsNorm& op);

}  // namespace heddle::cuda
