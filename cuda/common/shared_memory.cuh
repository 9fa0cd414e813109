// Shared memory by its 32-bit addresses: copies to it that need no registers on their way, and loads from it.
#pragma once

#include <cstdint>

namespace heddle::cuda {

__device__ __forceinline__ uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// 16 bytes from global memory, past L1. Both addresses lie on 16 bytes.
__device__ __forceinline__ void CopyAsync(uint32_t to_shared, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to_shared), "l"(from) : "memory");
}

// The same, but bytes from `num_bytes` (0 to 16) on become zero and are not read.
__device__ __forceinline__ void CopyAsync(uint32_t to_shared, const void* from, int num_bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to_shared), "l"(from), "r"(num_bytes) : "memory");
}

// The same for what is read in order: L2 takes the 128 bytes around it. Zeros, and nothing is read, unless `valid`.
__device__ __forceinline__ void CopyAsyncInOrder(uint32_t to_shared, const void* from, bool valid = true) {
  const int num_bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to_shared), "l"(from), "r"(num_bytes)
               : "memory");
}

// How L2 is to keep what is read once: not at the price of anything else.
__device__ __forceinline__ uint64_t ReadOncePolicy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// As it does without a policy.
__device__ __forceinline__ uint64_t KeepPolicy() {
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// CopyAsync with a policy.
__device__ __forceinline__ void CopyAsyncWith(uint64_t policy, uint32_t to_shared, const void* from,
                                              int num_bytes = 16) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;" ::"r"(to_shared), "l"(from),
               "r"(num_bytes), "l"(policy)
               : "memory");
}

// Ends the calling thread's group of copies; groups arrive in order.
__device__ __forceinline__ void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most the latest kPending groups of the calling thread are on their way.
template <int kPending>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

__device__ __forceinline__ void StoreShared(uint32_t to, const uint4& value) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(value.x), "r"(value.y), "r"(value.z),
               "r"(value.w)
               : "memory");
}

__device__ __forceinline__ float4 LoadShared(uint32_t from) {
  float4 value;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
               : "r"(from)
               : "memory");
  return value;
}

// Words and pairs of words, which lie on as many bytes.
__device__ __forceinline__ uint32_t LoadSharedWord(uint32_t from) {
  uint32_t value;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(from) : "memory");
  return value;
}
__device__ __forceinline__ uint16_t LoadSharedHalfWord(uint32_t from) {
  uint16_t value;
  asm volatile("ld.shared.u16 %0, [%1];" : "=h"(value) : "r"(from) : "memory");
  return value;
}
__device__ __forceinline__ uint2 LoadSharedPair(uint32_t from) {
  uint2 value;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "r"(from) : "memory");
  return value;
}

// Four matrices of 8 rows of 16 bytes. Lane 8 i + r says where row r of matrix i lies; lane 4 r + j receives in
// to[i] bytes 4 j to 4 j + 3 of it.
__device__ __forceinline__ void LoadMatrices(uint32_t (&to)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}

// The same, each matrix transposed as one of 8x8 elements of 16 bits.
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&to)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
}

// The counterpart of LoadMatricesTransposed.
__device__ __forceinline__ void StoreMatricesTransposed(uint32_t to, const uint32_t (&from)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(from[0]),
               "r"(from[1]), "r"(from[2]), "r"(from[3])
               : "memory");
}

}  // namespace heddle::cuda
