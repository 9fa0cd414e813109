// Launching kernels so that a kernel's beginning overlaps the end of the one before it (programmatic dependent launch,
// from compute capability 9.0 on).
//
// The contract that makes it safe: a kernel launched with Launch may start while kernels before it still run. Until it
// has called WaitForPrevious it reads nothing that an op wrote and writes nothing to global memory; weights it may
// read. Every thread block calls it before it ends. AllowNext lets the following kernel start, as soon as all blocks
// called it or ended: call it early; it says nothing about results.
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
#endif

// Launches kernel<<<grid, block, shared_bytes>>>(arguments...). More than 48 KiB of shared memory needs AllowShared
// once before. Fails as Check does.
template <typename... Parameters, typename... Arguments>
void Launch(const HeddleCudaStream& stream, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            const Arguments&... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream.stream;
  config.attrs = &attribute;
  config.numAttrs = stream.properties.major >= 9 ? 1 : 0;
  HEDDLE_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

// Lets `kernel` be launched with this many bytes of dynamic shared memory on the calling thread's device. Cheap enough
// to call before every launch. Any thread: what was allowed stays allowed.
void AllowSharedBytes(const void* kernel, size_t shared_bytes);

template <typename... Parameters>
void AllowShared(void (*kernel)(Parameters...), size_t shared_bytes) {
  AllowSharedBytes(reinterpret_cast<const void*>(kernel), shared_bytes);
}

}  // namespace heddle::cuda
