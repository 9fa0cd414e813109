// NCCL, opened at run time, so that a machine without it lacks only collectives among devices.
#pragma once

#include <nccl.h>

#include <string>

#include "common/error.h"

namespace heddle::cuda {

struct NcclLibrary {
  int version = 0;  // as NCCL counts: 23007 is 2.30.7

  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRankConfig) comm_init_rank_config = nullptr;
  decltype(&ncclCommFinalize) comm_finalize = nullptr;
  decltype(&ncclCommDestroy) comm_destroy = nullptr;
  decltype(&ncclCommAbort) comm_abort = nullptr;
  decltype(&ncclCommGetAsyncError) comm_get_async_error = nullptr;
  decltype(&ncclGetErrorString) get_error_string = nullptr;
  decltype(&ncclGetLastError) get_last_error = nullptr;
  decltype(&ncclAllReduce) all_reduce = nullptr;
  decltype(&ncclAllGather) all_gather = nullptr;
  decltype(&ncclBroadcast) broadcast = nullptr;
  decltype(&ncclSend) send = nullptr;
  decltype(&ncclRecv) recv = nullptr;
  decltype(&ncclGroupStart) group_start = nullptr;
  decltype(&ncclGroupEnd) group_end = nullptr;
};

// Opens libnccl.so.2, or the file that HEDDLE_NCCL names, at the first call. Fails with kHeddleCudaUnavailable when it
// cannot be opened or is older than NCCL 2.27; a later call tries again. Any thread may call it.
const NcclLibrary& Nccl();

// "2.30.7"
std::string NcclVersionName(int version);

// What went wrong, as NCCL says it.
std::string NcclMessage(ncclResult_t result, const char* call);

}  // namespace heddle::cuda
