// Launching kernels so that a kernel's beginning overlaps the end of the one before it (programmatic dependent launch,
// from compute capability 9.0 on).
//
// The contract that makes it safe: a kernel launched with Launch may start while kernels before it still run, several
// of them. Until it has called WaitForPrevious it reads nothing that an op wrote and writes nothing to global memory;
// weights it may read, and what says where things lie (see "Streams" in heddle_cuda.h). Every thread block calls it
// before it ends. AllowNext lets the following kernel start, as soon as all blocks called it or ended: call it first of
// all; it says nothing about results. The blocks that then wait take no room that an earlier kernel still needs, for
// all of its blocks have begun.
#pragma once

#include <cuda_runtime.h>

#include "common/stream.h"

namespace heddle::cuda {

#ifdef __CUDACC__
__device__ __forceinline__ void WaitForPrevious() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void AllowNext() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// A hint to bring the 128 bytes at `address` to L2. It may come before WaitForPrevious whatever wrote them, since L2 is
// where writes go. What was last used a layer ago is in device memory again, and would wait there behind weights.
__device__ __forceinline__ void PrefetchToL2(const void* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}
#endif

// Launch with blocks in clusters of so many, of which the grid is a multiple.
template <typename... Parameters, typename... Arguments>
void LaunchClusters(const HeddleCudaStream& stream, void (*kernel)(Parameters...), int cluster, dim3 grid, dim3 block,
                    size_t shared_bytes, const Arguments&... arguments) {
  cudaLaunchAttribute attributes[3] = {};
  attributes[0].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
  attributes[0].val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  attributes[2].id = cudaLaunchAttributeClusterDimension;
  attributes[2].val.clusterDim = {static_cast<unsigned>(cluster), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream.stream;
  config.attrs = attributes;
  config.numAttrs = stream.properties.major < 9 ? 1 : cluster == 1 ? 2 : 3;
  HEDDLE_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

// Launches kernel<<<grid, block, shared_bytes>>>(arguments...). More than 48 KiB of shared memory needs AllowShared
// once before. Fails as Check does.
//
// Every kernel asks for as much shared memory a multiprocessor as there is, whether it needs it or not: to divide its
// memory anew a multiprocessor must be empty, so kernels of different divisions would not overlap.
template <typename... Parameters, typename... Arguments>
void Launch(const HeddleCudaStream& stream, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            const Arguments&... arguments) {
  LaunchClusters(stream, kernel, 1, grid, block, shared_bytes, arguments...);
}

// Lets `kernel` be launched with this many bytes of dynamic shared memory on the calling thread's device. Cheap enough
// to call before every launch. Any thread: what was allowed stays allowed.
void AllowSharedBytes(const void* kernel, size_t shared_bytes);

template <typename... Parameters>
void AllowShared(void (*kernel)(Parameters...), size_t shared_bytes) {
  AllowSharedBytes(reinterpret_cast<const void*>(kernel), shared_bytes);
}

}  // namespace heddle::cuda
