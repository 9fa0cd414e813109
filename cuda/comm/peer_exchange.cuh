// How a kernel's threads pass 16 bytes at a time to all ranks of a peer group: see peer_group.h.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "comm/peer_group.h"

namespace heddle::cuda {

// A word of this value means that nothing has come yet. As data it is not a number, in each of the float types, and is
// sent as another one.
constexpr uint32_t kEmptyWord = 0xffffffffu;
constexpr uint32_t kSameAsEmptyWord = 0x7fffffffu;

// Atomic in each word and never served from a cache that peers do not write to. Messages need no order among words:
// each tells by itself whether it is there.
__device__ __forceinline__ uint4 LoadFromPeers(const uint4* address) {
  uint4 words;
  asm volatile("ld.relaxed.sys.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "l"(address)
               : "memory");
  return words;
}

__device__ __forceinline__ void StoreForPeers(uint4* address, uint4 words) {
  asm volatile("st.relaxed.sys.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(words.x), "r"(words.y), "r"(words.z),
               "r"(words.w)
               : "memory");
}

__device__ __forceinline__ uint64_t Nanoseconds() {
  uint64_t time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}

// One thread's part in one collective of `kSize` ranks. Threads of a rank send and receive different packs; a pack is
// received by the thread that has its index, at every rank.
template <int kSize>
class PeerExchange {
 public:
  // After WaitForPrevious: the kernel before may have been a collective too.
  __device__ __forceinline__ explicit PeerExchange(const PeerView& view) : view_(view) {
    asm volatile("ld.relaxed.gpu.u32 %0, [%1];"
                 : "=r"(num_collectives_)
                 : "l"(view.num_collectives + blockIdx.x)
                 : "memory");
    set_ = num_collectives_ % 2 == 0 ? 0 : kSize * view.slot_packs;
  }

  // The same `pack` at most once a collective.
  __device__ __forceinline__ void Send(int pack, uint4 words) const {
    words = {Sendable(words.x), Sendable(words.y), Sendable(words.z), Sendable(words.w)};
    const int slot = set_ + view_.rank * view_.slot_packs + pack;
#pragma unroll
    for (int peer = 0; peer < kSize; ++peer) StoreForPeers(view_.slots[peer] + slot, words);
  }

  // Waits until every rank, this one too, has sent its pack. Leaves `parts` unspecified once the group is broken.
  __device__ __forceinline__ void Receive(int pack, uint4 (&parts)[kSize]) {
    uint4* const first = view_.own_slots + set_ + pack;
    for (uint32_t polls = 1;; ++polls) {
      bool all_here = true;
#pragma unroll
      for (int peer = 0; peer < kSize; ++peer) parts[peer] = LoadFromPeers(first + peer * view_.slot_packs);
#pragma unroll
      for (int peer = 0; peer < kSize; ++peer) all_here = all_here && IsHere(parts[peer]);
      if (all_here) break;
      if (polls % kPollsPerCheck == 0 && IsBroken()) return;
    }
#pragma unroll
    for (int peer = 0; peer < kSize; ++peer) {
      StoreForPeers(first + peer * view_.slot_packs, {kEmptyWord, kEmptyWord, kEmptyWord, kEmptyWord});
    }
  }

  // Called by all threads of the block after the last Receive. Contains a barrier.
  __device__ __forceinline__ void End() const {
    __syncthreads();  // every thread has read the count
    // Those that no block of this launch has are counted by the others, so that all counts stay equal.
    const auto step = static_cast<int>(gridDim.x * blockDim.x);
    for (auto i = static_cast<int>(blockIdx.x + gridDim.x * threadIdx.x); i < kMaxPeerBlocks; i += step) {
      view_.num_collectives[i] = num_collectives_ + 1;
    }
  }

 private:
  // Some hundred microseconds, for looking at host memory slows everyone down.
  static constexpr uint32_t kPollsPerCheck = 256;

  static __device__ __forceinline__ uint32_t Sendable(uint32_t word) {
    return word == kEmptyWord ? kSameAsEmptyWord : word;
  }

  static __device__ __forceinline__ bool IsHere(const uint4& words) {
    return words.x != kEmptyWord && words.y != kEmptyWord && words.z != kEmptyWord && words.w != kEmptyWord;
  }

  // Breaks the group itself when it has waited too long.
  __device__ __forceinline__ bool IsBroken() {
    uint64_t state;
    asm volatile("ld.relaxed.sys.u64 %0, [%1];" : "=l"(state) : "l"(view_.state) : "memory");
    if (state != 0) return true;
    const uint64_t now = Nanoseconds();
    if (wait_began_ == 0) wait_began_ = now;
    if (now - wait_began_ < view_.timeout_ns) return false;
    asm volatile("st.relaxed.sys.u32 [%0], %1;" ::"l"(&view_.state->timed_out), "r"(1) : "memory");
    return true;
  }

  const PeerView& view_;
  uint32_t num_collectives_;
  int set_;
  uint64_t wait_began_ = 0;
};

}  // namespace heddle::cuda
