// Instructions of compute capability 9.0, one function each: copies by the tensor memory accelerator, and what products
// of a warpgroup, four warps that act as one, need besides. Registers are given up and taken from 9.0a on alone.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "common/barrier.cuh"
#include "common/numeric.cuh"
#include "common/shared_memory.cuh"

namespace heddle::cuda::hopper {

using cuda::Arrive;
using cuda::Barrier;
using cuda::InitBarrier;
using cuda::Wait;

// Once, after barriers were initialised and before others are told.
__device__ __forceinline__ void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void ArriveAndExpect(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(bytes)
               : "memory");
}

// Copies `bytes` bytes; all three are multiples of 16. Announces them as copied at `barrier`.
__device__ __forceinline__ void CopyBytes(void* to, const void* from, int bytes, Barrier* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   SharedAddress(to)),
               "l"(from), "r"(bytes), "r"(SharedAddress(barrier))
               : "memory");
}

// Copies the box of `map` that begins with these coordinates; what lies outside the tensor arrives as zeros. Announces
// the box's bytes as copied at `barrier`.
__device__ __forceinline__ void CopyBox(void* to, const CUtensorMap& map, Barrier* barrier, int x, int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::
          "r"(SharedAddress(to)),
      "l"(&map), "r"(SharedAddress(barrier)), "r"(x), "r"(y)
      : "memory");
}

__device__ __forceinline__ void CopyBox(void* to, const CUtensorMap& map, Barrier* barrier, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(SharedAddress(to)),
      "l"(&map), "r"(SharedAddress(barrier)), "r"(x), "r"(y), "r"(z)
      : "memory");
}

// CopyBox with a policy of L2.
__device__ __forceinline__ void CopyBoxWith(uint64_t policy, void* to, const CUtensorMap& map, Barrier* barrier, int x,
                                            int y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, "
      "%4}], [%2], %5;" ::"r"(SharedAddress(to)),
      "l"(&map), "r"(SharedAddress(barrier)), "r"(x), "r"(y), "l"(policy)
      : "memory");
}

__device__ __forceinline__ void CopyBoxWith(uint64_t policy, void* to, const CUtensorMap& map, Barrier* barrier, int x,
                                            int y, int z, int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, "
      "%4, %5, %6}], [%2], %7;" ::"r"(SharedAddress(to)),
      "l"(&map), "r"(SharedAddress(barrier)), "r"(x), "r"(y), "r"(z), "r"(w), "l"(policy)
      : "memory");
}

// Copies a box from shared memory to where it belongs in `map`, but for what lies outside the tensor. Copies since the
// last CommitStores are a group of the calling thread's.
__device__ __forceinline__ void StoreBox(const CUtensorMap& map, const void* from, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(&map),
               "r"(SharedAddress(from)), "r"(x), "r"(y)
               : "memory");
}
__device__ __forceinline__ void CommitStores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

// Until at most `kPending` of the thread's youngest groups have yet to be read from shared memory.
template <int kPending>
__device__ __forceinline__ void WaitForStoresToRead() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ void PrefetchMap(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// All threads of a cluster's blocks that have not ended wait for each other; what they wrote is there then.
__device__ __forceinline__ void SyncCluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// Stores to where `to` lies in the shared memory of the cluster's block of this rank.
__device__ __forceinline__ void StoreToBlock(int rank, uint32_t to, const uint4& value) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "st.shared::cluster.v4.u32 [there], {%2, %3, %4, %5};\n"
      "}\n" ::"r"(to),
      "r"(rank), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w)
      : "memory");
}

// What this thread wrote to shared memory becomes visible to tensor cores and copies that begin after a barrier.
__device__ __forceinline__ void FenceAsyncProxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Barriers of hardware, by number: `threads` threads take part, those of Sync wait for all.
__device__ __forceinline__ void SyncNamed(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ __forceinline__ void ArriveNamed(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Registers that each thread of the warpgroup has from here on.
template <int kCount>
__device__ __forceinline__ void GiveUpRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

}  // namespace heddle::cuda::hopper
