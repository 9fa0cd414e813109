// HeddleCudaNcclOptions as NCCL's own configuration. What NCCL takes from its environment alone (NCCL_ALGO, NCCL_PROTO,
// NCCL_BUFFSIZE, NCCL_SOCKET_IFNAME, NCCL_DEBUG ...) is of the whole process, and not here: see nccl_environment.h.
#pragma once

#include <string>

#include "comm/nccl_library.h"

namespace heddle::cuda {

// The strings of an ncclConfig_t, which NCCL reads for as long as the communicator lives.
struct NcclNames {
  std::string net;
  std::string comm;
};

// A configuration for communicators that never block. Fails with kHeddleCudaInvalid on a value out of range, and with
// kHeddleCudaUnavailable on one that this NCCL, or its environment, does not provide.
ncclConfig_t NcclConfig(const HeddleCudaNcclOptions& options, NcclNames& names);

}  // namespace heddle::cuda
