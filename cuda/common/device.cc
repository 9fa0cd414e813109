#include "common/device.h"

#include <algorithm>
#include <cstring>

#include "common/clusters.h"

namespace heddle::cuda {
namespace {

int Attribute(cudaDeviceAttr attribute, int device) {
  int value = 0;
  HEDDLE_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

void RequireDevice(int device) {
  const int count = DeviceCount();
  if (device >= 0 && device < count) return;
  Fail(kHeddleCudaInvalid, "device " + std::to_string(device) + " of " + std::to_string(count));
}

}  // namespace

int32_t DeviceCount() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();
    int driver = 0;
    if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) {
      Fail(kHeddleCudaUnavailable, "no CUDA driver is installed");
    }
    Fail(kHeddleCudaUnavailable, std::string("no CUDA device can be used: ") + cudaGetErrorString(error));
  }
  if (count == 0) Fail(kHeddleCudaUnavailable, "the CUDA driver shows no device");
  return count;
}

HeddleCudaDeviceInfo DeviceInfo(int device) {
  RequireDevice(device);
  cudaDeviceProp properties{};
  HEDDLE_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  SetDevice(device);
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  HEDDLE_CUDA_CHECK(cudaMemGetInfo(&free_bytes, &total_bytes));

  HeddleCudaDeviceInfo info{};
  const size_t length = std::min(std::strlen(properties.name), sizeof(info.name) - 1);
  std::memcpy(info.name, properties.name, length);
  info.major = properties.major;
  info.minor = properties.minor;
  info.num_multiprocessors = properties.multiProcessorCount;
  info.total_bytes = static_cast<int64_t>(total_bytes);
  info.free_bytes = static_cast<int64_t>(free_bytes);
  info.l2_bytes = properties.l2CacheSize;
  return info;
}

DeviceProperties PropertiesOf(int device) {
  RequireDevice(device);
  DeviceProperties properties;
  properties.device = device;
  properties.major = Attribute(cudaDevAttrComputeCapabilityMajor, device);
  properties.minor = Attribute(cudaDevAttrComputeCapabilityMinor, device);
  properties.num_multiprocessors = Attribute(cudaDevAttrMultiProcessorCount, device);
  properties.shared_bytes_per_block = Attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (properties.major >= 9) {
    properties.most_clusters_of_2 = MostClusters(device, 2, properties.shared_bytes_per_block);
    properties.most_clusters_of_4 = MostClusters(device, 4, properties.shared_bytes_per_block);
  }
  if (properties.major < 8) {
    Fail(kHeddleCudaUnavailable, "device " + std::to_string(device) + " has compute capability " +
                                     std::to_string(properties.major) + "." + std::to_string(properties.minor) +
                                     "; 8.0 or later is needed");
  }
  if (Attribute(cudaDevAttrMemoryPoolsSupported, device) == 0) {
    Fail(kHeddleCudaUnavailable, "device " + std::to_string(device) + " has no stream-ordered memory pools");
  }
  return properties;
}

}  // namespace heddle::cuda
