// What the device can do at most, measured where it is asked for: the ceilings of what must read, and of what must
// multiply.
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

// Prints how fast a kernel reads 2 GiB that does nothing else, with the best grid. Returns bytes a second.
inline double ReadCeiling(Device& device) {
  constexpr int64_t kBytes = int64_t{2} << 30;
  void* memory = nullptr;
  Check(Api().allocate(device.stream(), kBytes + 16, &memory));
  Check(Api().fill_random(device.stream(), {memory, kBf16, kBytes / 8192, 4096, 4096}, 1, 1));
  Check(Api().stream_synchronize(device.stream()));
  auto* const sink = reinterpret_cast<uint32_t*>(static_cast<char*>(memory) + kBytes);
  int multiprocessors = 0;
  CheckCuda(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  cudaEvent_t begin, end;
  CheckCuda(cudaEventCreate(&begin));
  CheckCuda(cudaEventCreate(&end));
  Times best = {1e9, 1e9, 1e9};
  for (const int blocks_per_multiprocessor : {2, 4, 8, 16}) {
    std::vector<double> seconds(kRuns);
    for (int run = -5; run < kRuns; ++run) {
      CheckCuda(cudaEventRecord(begin));
      ReadKernel<<<multiprocessors * blocks_per_multiprocessor, kReadThreads>>>(static_cast<const uint4*>(memory),
                                                                                kBytes / 16, sink);
      CheckCuda(cudaGetLastError());
      CheckCuda(cudaEventRecord(end));
      CheckCuda(cudaDeviceSynchronize());
      float milliseconds = 0;
      CheckCuda(cudaEventElapsedTime(&milliseconds, begin, end));
      if (run >= 0) seconds[static_cast<size_t>(run)] = milliseconds * 1e-3;
    }
    const Times times = TimesOf(seconds);
    if (times.median < best.median) best = times;
  }
  CheckCuda(cudaEventDestroy(begin));
  CheckCuda(cudaEventDestroy(end));
  Check(Api().free(device.stream(), memory));
  Print({"reading", "2 GiB", best, kBytes});
  return kBytes / best.median;
}

// Prints how fast the library multiplies large square matrices. Returns operations a second.
inline double ProductCeiling(Device& device) {
  constexpr int64_t kSize = 8192;
  const HeddleCudaMatmul op = {device.Random(kSize, kSize), DenseWeight(device.Random(kSize, kSize, 0.02f)), nullptr,
                               device.Random(kSize, kSize)};
  const Times times = device.Measure([&] { Check(Api().matmul(device.stream(), &op)); }, 4);
  constexpr double kOperations = 2.0 * kSize * kSize * kSize;
  Print({"product of squares", "8192", times, kOperations, 0, Unit::kTeraflops});
  return kOperations / times.median;
}

}  // namespace heddle::bench
