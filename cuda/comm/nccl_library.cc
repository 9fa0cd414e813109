#include "comm/nccl_library.h"

#include "common/shared_library.h"

namespace heddle::cuda {
namespace {

// Fields of its configuration up to shrinkShare and nvlsCTAs; what newer ones need is checked where they are set.
constexpr int kOldestVersion = NCCL_VERSION(2, 27, 0);
static_assert(NCCL_VERSION_CODE >= NCCL_VERSION(2, 28, 0), "nccl.h of NCCL 2.28 or newer is needed");

NcclLibrary Open() {
  const std::string needed = "collectives among devices need NCCL " + NcclVersionName(kOldestVersion) + " or newer";
  SharedLibrary file("HEDDLE_NCCL", {"libnccl.so.2"},
                     needed + ": install it, or let HEDDLE_NCCL name its libnccl.so.2");
  NcclLibrary library;
  decltype(&ncclGetVersion) get_version = nullptr;
  file.Find("ncclGetVersion", get_version);
  if (get_version(&library.version) != ncclSuccess || library.version < kOldestVersion) {
    Fail(kHeddleCudaUnavailable, needed + ", and " + file.file() + " is " + NcclVersionName(library.version));
  }
  file.Find("ncclGetUniqueId", library.get_unique_id);
  file.Find("ncclCommInitRankConfig", library.comm_init_rank_config);
  file.Find("ncclCommFinalize", library.comm_finalize);
  file.Find("ncclCommDestroy", library.comm_destroy);
  file.Find("ncclCommAbort", library.comm_abort);
  file.Find("ncclCommGetAsyncError", library.comm_get_async_error);
  file.Find("ncclGetErrorString", library.get_error_string);
  file.Find("ncclGetLastError", library.get_last_error);
  file.Find("ncclAllReduce", library.all_reduce);
  file.Find("ncclAllGather", library.all_gather);
  file.Find("ncclBroadcast", library.broadcast);
  file.Find("ncclSend", library.send);
  file.Find("ncclRecv", library.recv);
  file.Find("ncclGroupStart", library.group_start);
  file.Find("ncclGroupEnd", library.group_end);
  file.KeepOpen();  // its threads may outlive every communicator
  return library;
}

}  // namespace

const NcclLibrary& Nccl() {
  static const NcclLibrary library = Open();
  return library;
}

std::string NcclVersionName(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

std::string NcclMessage(ncclResult_t result, const char* call) {
  const NcclLibrary& nccl = Nccl();
  std::string message = std::string(call) + " failed in NCCL: " + nccl.get_error_string(result);
  const char* detail = nccl.get_last_error(nullptr);
  if (detail != nullptr && *detail != '\0') message += std::string(" (") + detail + ")";
  return message;
}

}  // namespace heddle::cuda
