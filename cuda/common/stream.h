// A stream with what its ops need: the device's properties, scratch memory, plans of matrix products.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <unordered_map>

#include "common/error.h"

namespace heddle::cuda {

class GemmPlans;  // gemm/gemm.h

// What kernels are chosen and sized by.
struct DeviceProperties {
  int device = 0;
  int major = 0;
  int minor = 0;
  int num_multiprocessors = 0;
  int shared_bytes_per_block = 0;  // the most a block may opt in to
  // Clusters of so many blocks, each of which takes a whole multiprocessor, that find places at the same time; 0 before
  // compute capability 9.0.
  int most_clusters_of_2 = 0;
  int most_clusters_of_4 = 0;
};

}  // namespace heddle::cuda

struct HeddleCudaStream {
  heddle::cuda::DeviceProperties properties;
  cudaStream_t stream = nullptr;
  std::chrono::microseconds timeout{};  // of every wait for the stream
  cudaMemPool_t pool = nullptr;         // the stream's own
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
  // Zero between ops: counters that kernels use to find the last of several blocks, and reset.
  uint32_t* counters = nullptr;
  static constexpr int kNumCounters = 1 << 16;
  std::shared_ptr<heddle::cuda::GemmPlans> gemm_plans;  // made by the first large product
  std::unordered_map<void*, int64_t> allocations;       // what Allocate gave out, with its bytes
  bool capturing = false;
  bool capture_spoiled = false;  // a call failed since the capture began

  // Scratch memory of this op, 256-byte aligned, shared by all ops of the stream. Fails with kHeddleCudaInvalid when
  // the workspace is smaller.
  void* Scratch(int64_t bytes) const {
    if (bytes > workspace_bytes) {
      heddle::cuda::Fail(kHeddleCudaInvalid, "an op needs " + std::to_string(bytes) + " bytes of workspace, of " +
                                                 std::to_string(workspace_bytes));
    }
    return workspace;
  }
};

namespace heddle::cuda {

// See stream_create and stream_destroy. The work that DestroyStream waits for may have failed: then it throws, and the
// stream is gone all the same. Where that work does not end, nothing is given back.
HeddleCudaStream* CreateStream(int device, int64_t workspace_bytes, std::chrono::microseconds timeout);
void DestroyStream(HeddleCudaStream* stream);
// Fails with kHeddleCudaTimeout.
void SynchronizeStream(const HeddleCudaStream& stream);

}  // namespace heddle::cuda
