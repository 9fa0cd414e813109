// Collectives for ranks on GPUs, through NCCL, which the CUDA library opens at run time.
//
// A collective is launched on the rank's stream and returns at once, and may be captured into a graph; tensors lie in
// the memory of the stream's device and have no gaps between rows. What becomes of it is known once the stream has been
// waited for: CheckHealth.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "base/nccl_options.h"
#include "comm/communicator.h"

namespace heddle {

// Creates the communicators of one group, index = rank; `devices` are the ranks' GPUs. They find each other in Connect.
// Fails with kInvalidArgument when NCCL is not installed, or was first used in this process with another environment
// than the options'.
std::vector<std::unique_ptr<Communicator>> CreateNcclGroup(const std::vector<int32_t>& devices,
                                                           const NcclOptions& options,
                                                           std::chrono::milliseconds timeout);

}  // namespace heddle
