// Barriers in shared memory, of compute capability 8.0 on.
#pragma once

#include <cstdint>

#include "common/shared_memory.cuh"

namespace heddle::cuda {

// Its phase ends when `arrivals` threads have arrived, on 9.0 also not before all bytes that were announced have been
// copied. Phases alternate in parity, beginning with 0.
using Barrier = uint64_t;

__device__ __forceinline__ void InitBarrier(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void Arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}

// Until the phase of this parity has ended; the one before the first is of parity 1.
__device__ __forceinline__ void Wait(Barrier* barrier, uint32_t parity) {
#if __CUDA_ARCH__ >= 900
#define HEDDLE_BARRIER_WAIT "mbarrier.try_wait.parity.shared.b64"
#else
#define HEDDLE_BARRIER_WAIT "mbarrier.test_wait.parity.shared.b64"
#endif
  uint32_t done = 0;
  while (done == 0) {
    asm volatile("{\n.reg .pred p;\n" HEDDLE_BARRIER_WAIT " p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}\n"
                 : "=r"(done)
                 : "r"(SharedAddress(barrier)), "r"(parity)
                 : "memory");
  }
#undef HEDDLE_BARRIER_WAIT
}

}  // namespace heddle::cuda
