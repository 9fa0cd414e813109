// Collectives for ranks that are threads of one process, through shared memory.
//
// A rank that arrives early spins briefly, then yields, then parks, so that more ranks than cores do not starve each
// other. Small sums are read by every rank from every rank's buffer (one barrier); large ones are reduced in parts
// and gathered (two barriers). Both join ranks in the same tree.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "comm/communicator.h"

namespace heddle {

// Creates the communicators of one group, index = rank. `oversubscribed` as in ThreadPool. The objects share state and
// may be destroyed in any order. REQUIRES: size is 1, 2, 4 or 8.
std::vector<std::unique_ptr<Communicator>> CreateLocalGroup(int size, std::chrono::milliseconds timeout,
                                                            bool oversubscribed);

// Bytes that a rank's communicator comes to hold when its largest tensor has `num_elements`.
int64_t LocalCommunicatorBytes(int64_t num_elements);

}  // namespace heddle
