#include "comm/nccl_options.h"

#include <algorithm>
#include <cstdlib>

namespace heddle::cuda {
namespace {

constexpr int kUnset = -1;
constexpr int kMaxCtas = 64;
// Ranks that share a device: with up to two of them NCCL's own choice is resident at once, and faster.
constexpr int kMaxUncappedRanks = 2;
constexpr int kSharedDeviceCtas = 4;

void RequireVersion(int version, const std::string& what) {
  if (Nccl().version >= version) return;
  Fail(kHeddleCudaUnavailable,
       what + " needs NCCL " + NcclVersionName(version) + ", and the library is " + NcclVersionName(Nccl().version));
}

// Sets a field unless the choice is NCCL's.
void Set(int& field, const char* name, int value, int lowest, int highest) {
  if (value == kUnset) return;
  if (value < lowest || value > highest) {
    Fail(kHeddleCudaInvalid, std::string("NCCL option ") + name + " is " + std::to_string(value) + ", not from " +
                                 std::to_string(lowest) + " to " + std::to_string(highest));
  }
  field = value;
}

void Set(const char*& field, const char* name, std::string& storage) {
  if (name == nullptr) return;
  storage = name;
  field = storage.c_str();
}

void RequireSharedDevices() {
  const std::string what = "a communicator with several ranks on one device";
  RequireVersion(NCCL_VERSION(2, 30, 0), what);
  const char* enabled = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  if (enabled == nullptr || std::atoi(enabled) == 0) {
    Fail(kHeddleCudaUnavailable, what + " needs NCCL_MULTI_RANK_GPU_ENABLE=1 in the environment");
  }
}

}  // namespace

ncclConfig_t NcclConfig(const HeddleCudaNcclOptions& options, NcclNames& names) {
  constexpr int kAnyNumber = 0x7fffffff;
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  Set(config.minCTAs, "min_ctas", options.min_ctas, 1, kMaxCtas);
  Set(config.maxCTAs, "max_ctas", options.max_ctas, 1, kMaxCtas);
  Set(config.cgaClusterSize, "cga_cluster_size", options.cga_cluster_size, 0, 8);
  Set(config.nvlsCTAs, "nvls_ctas", options.nvls_ctas, 1, kMaxCtas);
  Set(config.CTAPolicy, "cta_policy", options.cta_policy, 0, 2);
  Set(config.collnetEnable, "collnet_enable", options.collnet_enable, 0, 1);
  Set(config.trafficClass, "traffic_class", options.traffic_class, 0, kAnyNumber);
  Set(config.nChannelsPerNetPeer, "channels_per_net_peer", options.channels_per_net_peer, 1, kMaxCtas);
  Set(config.nvlinkCentricSched, "nvlink_centric_scheduling", options.nvlink_centric_scheduling, 0, 1);
  Set(config.netName, options.net_name, names.net);
  Set(config.commName, options.comm_name, names.comm);

  // An older library would leave them out without a word.
  if (options.channels_per_net_peer != kUnset) RequireVersion(NCCL_VERSION(2, 28, 0), "channels_per_net_peer");
  if (options.nvlink_centric_scheduling != kUnset) RequireVersion(NCCL_VERSION(2, 28, 0), "nvlink_centric_scheduling");

  Require(options.ranks_on_device >= 1, "NCCL option ranks_on_device is less than 1");
  if (options.ranks_on_device > 1) RequireSharedDevices();
  if (options.max_ctas == kUnset) {
    const bool capped = options.ranks_on_device > kMaxUncappedRanks;
    // NCCL takes a lower bound only together with an upper one.
    if (capped || options.min_ctas != kUnset) {
      config.maxCTAs = std::max(capped ? kSharedDeviceCtas : kMaxCtas, options.min_ctas);
    }
  }
  Require(options.max_ctas == kUnset || options.min_ctas <= options.max_ctas,
          "NCCL option min_ctas is more than max_ctas");
  return config;
}

}  // namespace heddle::cuda
