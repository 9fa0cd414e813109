#include "comm/nccl_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <memory>

namespace heddle::cuda {
namespace {

// Fields of its configuration up to shrinkShare and nvlsCTAs; what newer ones need is checked where they are set.
constexpr int kOldestVersion = NCCL_VERSION(2, 27, 0);
static_assert(NCCL_VERSION_CODE >= NCCL_VERSION(2, 28, 0), "nccl.h of NCCL 2.28 or newer is needed");

constexpr const char* kDefaultFile = "libnccl.so.2";

struct Closer {
  void operator()(void* file) const noexcept { dlclose(file); }
};

template <typename Function>
void Find(void* file, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(file, name));
  if (function == nullptr) Fail(kHeddleCudaUnavailable, std::string("the NCCL library has no function ") + name);
}

NcclLibrary Open() {
  const char* chosen = std::getenv("HEDDLE_NCCL");
  const std::string path = chosen != nullptr && *chosen != '\0' ? chosen : kDefaultFile;
  const std::string needed = "collectives among devices need NCCL " + NcclVersionName(kOldestVersion) + " or newer";

  std::unique_ptr<void, Closer> file(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL));
  if (file == nullptr) {
    const char* reason = dlerror();
    Fail(kHeddleCudaUnavailable, needed + ", as libnccl.so.2 or as the file that HEDDLE_NCCL names: " +
                                     (reason != nullptr ? reason : path.c_str()));
  }
  NcclLibrary library;
  decltype(&ncclGetVersion) get_version = nullptr;
  Find(file.get(), "ncclGetVersion", get_version);
  if (get_version(&library.version) != ncclSuccess || library.version < kOldestVersion) {
    Fail(kHeddleCudaUnavailable, needed + ", and " + path + " is " + NcclVersionName(library.version));
  }
  Find(file.get(), "ncclGetUniqueId", library.get_unique_id);
  Find(file.get(), "ncclCommInitRankConfig", library.comm_init_rank_config);
  Find(file.get(), "ncclCommFinalize", library.comm_finalize);
  Find(file.get(), "ncclCommDestroy", library.comm_destroy);
  Find(file.get(), "ncclCommAbort", library.comm_abort);
  Find(file.get(), "ncclCommGetAsyncError", library.comm_get_async_error);
  Find(file.get(), "ncclGetErrorString", library.get_error_string);
  Find(file.get(), "ncclGetLastError", library.get_last_error);
  Find(file.get(), "ncclAllReduce", library.all_reduce);
  Find(file.get(), "ncclAllGather", library.all_gather);
  Find(file.get(), "ncclBroadcast", library.broadcast);
  Find(file.get(), "ncclSend", library.send);
  Find(file.get(), "ncclRecv", library.recv);
  Find(file.get(), "ncclGroupStart", library.group_start);
  Find(file.get(), "ncclGroupEnd", library.group_end);
  // Stays open until the process ends: its threads may outlive every communicator.
  static_cast<void>(file.release());
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
