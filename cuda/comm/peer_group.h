// Memory that the ranks of one process write into each other's devices, for collectives in one kernel.
//
// Each rank has slots, one for each source rank, twice. A collective writes every rank's message into its slot at every
// rank, and each rank waits until its own slots are full. An empty slot holds words of all ones, and a message never
// does (peer_exchange.cuh), so data needs no flag beside it and one trip over the wire is all there is. Who has read a
// slot empties it.
//
// Two sets of slots, used in turn, are enough: a rank writes set i again two collectives later, and it has ended the
// one in between only after every peer sent for it, which a peer does after it emptied set i. Which set is next stands
// in device memory, so that replays of a graph go on where the last one ended.
#pragma once

#include <array>
#include <chrono>

#include "common/stream.h"

namespace heddle::cuda {

constexpr int kMaxPeers = 8;
// So that 32 bits count the packs of all slots of a rank.
constexpr int64_t kMaxSlotBytes = int64_t{1} << 30;
// Of one rank's kernel at most, and of all kernels of one device together, which must be resident at once whatever else
// runs there: never more than half of its multiprocessors. Each has its own count of collectives, all of them equal
// between kernels.
constexpr int kMaxPeerBlocks = 64;

// In page-locked host memory, read by every kernel that waits for long. Once one of them is set the group is broken.
struct alignas(8) PeerGroupState {
  uint32_t timed_out;  // by a kernel
  uint32_t aborted;    // by the host
};

// What a rank's kernel sees of its group.
struct PeerView {
  uint4* slots[kMaxPeers];    // at each rank: [2, size, slot_packs] of 16 bytes
  uint4* own_slots;           // those at this rank
  uint32_t* num_collectives;  // of this rank: [kMaxPeerBlocks]
  PeerGroupState* state;
  uint64_t timeout_ns;
  int32_t slot_packs;
  int32_t rank;
  bool owns_device;  // no other rank of the group is on this rank's device
};

}  // namespace heddle::cuda

struct HeddleCudaPeerGroup {
 public:
  HeddleCudaPeerGroup(HeddleCudaStream* const* streams, int size, int64_t max_bytes, std::chrono::microseconds timeout);
  ~HeddleCudaPeerGroup();
  HeddleCudaPeerGroup(const HeddleCudaPeerGroup&) = delete;
  HeddleCudaPeerGroup& operator=(const HeddleCudaPeerGroup&) = delete;

  int size() const { return size_; }
  int device(int rank) const { return ranks_[static_cast<size_t>(rank)].device; }
  int64_t max_bytes() const { return slot_packs_ * kPackBytes; }
  // Blocks that a kernel of this rank may have.
  int max_blocks(int rank) const;
  heddle::cuda::PeerView ViewOf(int rank) const;

  // Fails with kHeddleCudaTimeout or kHeddleCudaAborted once the group is broken. Any thread, as Abort.
  void CheckAlive() const;
  void Abort();

 private:
  static constexpr int64_t kPackBytes = 16;

  struct Rank {
    int device = 0;
    int num_multiprocessors = 0;
    void* memory = nullptr;  // slots, then counts
  };

  int RanksOnDeviceOf(int rank) const;
  int64_t SlotBytes() const { return 2 * size_ * slot_packs_ * kPackBytes; }
  void ConnectDevices() const;
  void AllocateAt(const HeddleCudaStream& stream, Rank& rank) const;
  void Release() noexcept;

  const int size_;
  const int64_t slot_packs_;
  const std::chrono::microseconds timeout_;
  std::array<Rank, heddle::cuda::kMaxPeers> ranks_{};
  heddle::cuda::PeerGroupState* state_ = nullptr;
};
