#include "common/clusters.h"

#include <cuda_runtime.h>

#include "common/device.h"
#include "common/error.h"
#include "common/launch.h"

namespace heddle::cuda {
namespace {

__global__ void Kernel() {}

}  // namespace

int MostClusters(int device, int blocks_of_cluster, int shared_bytes) {
  SetDevice(device);
  AllowShared(Kernel, static_cast<size_t>(shared_bytes));
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(blocks_of_cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks_of_cluster));
  config.blockDim = dim3(32);
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  HEDDLE_CUDA_CHECK(cudaOccupancyMaxActiveClusters(&clusters, Kernel, &config));
  return clusters;
}

}  // namespace heddle::cuda
