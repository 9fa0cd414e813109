// How fast a kernel reads device memory that does nothing else: the ceiling of what must read.
#pragma once

#include "bench/bench.h"

namespace heddle::bench {

inline constexpr int kReadThreads = 512;
inline constexpr int kReadsInFlight = 8;

static __global__ void __launch_bounds__(kReadThreads) ReadKernel(const uint4* from, int64_t count, uint32_t* sink) {
  uint32_t all = 0;
  const int64_t stride = int64_t{gridDim.x} * kReadThreads;
  for (int64_t i = int64_t{blockIdx.x} * kReadThreads + threadIdx.x; i < count; i += stride * kReadsInFlight) {
    uint4 packs[kReadsInFlight];
#pragma unroll
    for (int j = 0; j < kReadsInFlight; ++j) {
      const uint4* address = from + min(i + j * stride, count - 1);
      asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(packs[j].x), "=r"(packs[j].y), "=r"(packs[j].z), "=r"(packs[j].w)
                   : "l"(address));
    }
#pragma unroll
    for (const uint4& pack : packs) all ^= pack.x ^ pack.y ^ pack.z ^ pack.w;
  }
  if (all == 0x9e3779b9) *sink = all;  // never, or all the same: without a use there would be no reads
}

// Bytes a second of the best grid, over `bytes` of device memory.
inline double MeasureCeiling(const void* memory, int64_t bytes) {
  int multiprocessors = 0;
  CheckCuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  cudaEvent_t begin, end;
  CheckCuda(cudaEventCreate(&begin));
  CheckCuda(cudaEventCreate(&end));
  uint32_t* sink = nullptr;
  CheckCuda(cudaMalloc(&sink, sizeof(*sink)));
  double best = 0;
  for (const int blocks_per_multiprocessor : {2, 4, 8, 16}) {
    std::vector<double> seconds(kRuns);
    for (int run = -5; run < kRuns; ++run) {
      CheckCuda(cudaEventRecord(begin));
      ReadKernel<<<multiprocessors * blocks_per_multiprocessor, kReadThreads>>>(static_cast<const uint4*>(memory),
                                                                                bytes / 16, sink);
      CheckCuda(cudaEventRecord(end));
      CheckCuda(cudaDeviceSynchronize());
      float milliseconds = 0;
      CheckCuda(cudaEventElapsedTime(&milliseconds, begin, end));
      if (run >= 0) seconds[static_cast<size_t>(run)] = milliseconds * 1e-3;
    }
    best = std::max(best, static_cast<double>(bytes) / Median(seconds));
  }
  CheckCuda(cudaFree(sink));
  CheckCuda(cudaEventDestroy(begin));
  CheckCuda(cudaEventDestroy(end));
  return best;
}

}  // namespace heddle::bench
