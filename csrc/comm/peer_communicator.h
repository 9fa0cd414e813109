// Collectives for ranks on GPUs that reach each other's memory: small sums in one kernel, through that memory, where
// every rank sends its part to all ranks and each sums all parts; everything else through another communicator.
//
// What holds for NcclCommunicator's collectives holds here: launched on the rank's stream, captured into graphs, judged
// by CheckHealth. How many collectives were is counted on the device, so that a graph's replays go on where the last
// one ended. The sums' order is a balanced tree over ranks, rounded once.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/communicator.h"

namespace heddle {

// Takes the communicators of one group, index = rank, and gives each what is above. Whether ranks reach each other's
// memory is found out in Connect; where they do not, all goes through the given communicators.
std::vector<std::unique_ptr<Communicator>> CreatePeerGroup(std::vector<std::unique_ptr<Communicator>> others,
                                                           std::chrono::milliseconds timeout);

// A rank sends its part to all ranks at once, so the larger the group, the smaller the message up to which that is
// faster than sending parts of it around: 1 MiB for two ranks, 512 KiB for four, 256 KiB for eight.
constexpr int64_t MaxPeerMessageBytes(int size) { return (int64_t{2} << 20) / size; }

// Device memory that each of `size` ranks takes: twice room for everybody's message.
constexpr int64_t PeerCommunicatorBytes(int size) { return 2 * size * MaxPeerMessageBytes(size); }

}  // namespace heddle
