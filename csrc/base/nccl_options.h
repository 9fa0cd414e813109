// What a caller asks of NCCL. Plain data, down here for both the options and the communicator.
#pragma once

#include <map>
#include <string>

namespace heddle {

// Of a communicator; -1 and "" leave the choice to NCCL.
struct NcclOptions {
  int min_ctas = -1;
  int max_ctas = -1;
  int cga_cluster_size = -1;
  int nvls_ctas = -1;
  int cta_policy = -1;  // 0: default; 1: efficiency; 2: zero
  int collnet_enable = -1;
  int traffic_class = -1;
  int channels_per_net_peer = -1;
  int nvlink_centric_scheduling = -1;
  std::string net_name;
  std::string comm_name;
  // What NCCL must have found in the environment when this process first used it: all other ways to it are closed.
  std::map<std::string, std::string> environment;
};

}  // namespace heddle
