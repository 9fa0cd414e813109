#include "comm/peer_group.h"

#include <algorithm>
#include <atomic>
#include <string>

#include "common/device.h"
#include "common/memory.h"
#include "common/rounding.h"

using heddle::cuda::CeilDiv;
using heddle::cuda::Fail;
using heddle::cuda::PeerGroupState;
using heddle::cuda::PeerView;
using heddle::cuda::Require;
using heddle::cuda::SetDevice;

namespace {

constexpr std::chrono::hours kLongestTimeout{24};
constexpr int kEmptyByte = 0xff;
constexpr int64_t kCountBytes = heddle::cuda::kMaxPeerBlocks * int64_t{sizeof(uint32_t)};

// Lets kernels on `device` reach memory of `peer`.
void EnableAccess(int device, int peer) {
  int can_access = 0;
  HEDDLE_CUDA_CHECK(cudaDeviceCanAccessPeer(&can_access, device, peer));
  if (can_access == 0) {
    Fail(kHeddleCudaUnavailable,
         "device " + std::to_string(device) + " cannot reach memory of device " + std::to_string(peer));
  }
  SetDevice(device);
  const cudaError_t error = cudaDeviceEnablePeerAccess(peer, 0);
  if (error == cudaErrorPeerAccessAlreadyEnabled) {
    cudaGetLastError();
    return;
  }
  heddle::cuda::Check(error, "cudaDeviceEnablePeerAccess");
}

}  // namespace

HeddleCudaPeerGroup::HeddleCudaPeerGroup(HeddleCudaStream* const* streams, int size, int64_t max_bytes,
                                         std::chrono::microseconds timeout)
    : size_(size), slot_packs_(CeilDiv(max_bytes, kPackBytes)), timeout_(timeout) {
  Require(size == 2 || size == 4 || size == 8, "peer_group_create: not 2, 4 or 8 ranks");
  Require(max_bytes > 0 && max_bytes <= heddle::cuda::kMaxSlotBytes,
          "peer_group_create: messages of no bytes or above 1 GiB");
  Require(timeout.count() > 0 && timeout <= kLongestTimeout, "peer_group_create: a timeout of nothing or above a day");
  for (int rank = 0; rank < size; ++rank) {
    Require(streams[rank] != nullptr, "peer_group_create: a stream is null");
    Require(!streams[rank]->capturing, "peer_group_create: a stream is capturing a graph");
    ranks_[static_cast<size_t>(rank)].device = streams[rank]->properties.device;
    ranks_[static_cast<size_t>(rank)].num_multiprocessors = streams[rank]->properties.num_multiprocessors;
  }
  try {
    ConnectDevices();
    SetDevice(ranks_[0].device);
    state_ = static_cast<PeerGroupState*>(heddle::cuda::AllocateHost(sizeof(PeerGroupState)));
    *state_ = {};
    for (int rank = 0; rank < size; ++rank) AllocateAt(*streams[rank], ranks_[static_cast<size_t>(rank)]);
    for (int rank = 0; rank < size; ++rank) {
      SetDevice(streams[rank]->properties.device);
      heddle::cuda::SynchronizeStream(*streams[rank]);
    }
  } catch (const heddle::cuda::Failure& failure) {
    // What does not end in time may still write to the memory, and to give it back would wait for that.
    if (failure.status != kHeddleCudaTimeout) Release();
    throw;
  } catch (...) {
    Release();
    throw;
  }
}

HeddleCudaPeerGroup::~HeddleCudaPeerGroup() { Release(); }

PeerView HeddleCudaPeerGroup::ViewOf(int rank) const {
  PeerView view{};
  for (int peer = 0; peer < size_; ++peer) {
    view.slots[peer] = static_cast<uint4*>(ranks_[static_cast<size_t>(peer)].memory);
  }
  view.own_slots = view.slots[rank];
  view.num_collectives = reinterpret_cast<uint32_t*>(reinterpret_cast<char*>(view.own_slots) + SlotBytes());
  view.state = state_;
  view.slot_packs = static_cast<int32_t>(slot_packs_);
  view.timeout_ns = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(timeout_).count());
  view.rank = rank;
  view.owns_device = RanksOnDeviceOf(rank) == 1;
  return view;
}

void HeddleCudaPeerGroup::CheckAlive() const {
  // A kernel that waits gives up for whatever comes first, so if both are set the timeout was earlier.
  if (std::atomic_ref(state_->timed_out).load() != 0) {
    Fail(kHeddleCudaTimeout,
         "a rank waited longer than the limit of " +
             std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(timeout_).count()) +
             " ms for its peers");
  }
  if (std::atomic_ref(state_->aborted).load() != 0) Fail(kHeddleCudaAborted, "the group of peers was aborted");
}

void HeddleCudaPeerGroup::Abort() { std::atomic_ref(state_->aborted).store(1); }

int HeddleCudaPeerGroup::max_blocks(int rank) const {
  const int of_device =
      std::min(heddle::cuda::kMaxPeerBlocks, ranks_[static_cast<size_t>(rank)].num_multiprocessors / 2);
  return std::max(1, of_device / RanksOnDeviceOf(rank));
}

int HeddleCudaPeerGroup::RanksOnDeviceOf(int rank) const {
  int count = 0;
  for (int peer = 0; peer < size_; ++peer) {
    if (ranks_[static_cast<size_t>(peer)].device == ranks_[static_cast<size_t>(rank)].device) ++count;
  }
  return count;
}

void HeddleCudaPeerGroup::ConnectDevices() const {
  for (int rank = 0; rank < size_; ++rank) {
    for (int peer = 0; peer < size_; ++peer) {
      const int device = ranks_[static_cast<size_t>(rank)].device;
      const int other = ranks_[static_cast<size_t>(peer)].device;
      if (device != other) EnableAccess(device, other);
    }
  }
}

// Not from the stream's pool: peers have no access to that.
void HeddleCudaPeerGroup::AllocateAt(const HeddleCudaStream& stream, Rank& rank) const {
  SetDevice(rank.device);
  const auto slot_bytes = static_cast<size_t>(SlotBytes());
  HEDDLE_CUDA_CHECK(cudaMalloc(&rank.memory, slot_bytes + kCountBytes));
  HEDDLE_CUDA_CHECK(cudaMemsetAsync(rank.memory, kEmptyByte, slot_bytes, stream.stream));
  HEDDLE_CUDA_CHECK(cudaMemsetAsync(static_cast<char*>(rank.memory) + slot_bytes, 0, kCountBytes, stream.stream));
}

void HeddleCudaPeerGroup::Release() noexcept {
  for (const Rank& rank : ranks_) {
    if (rank.memory == nullptr) continue;
    cudaSetDevice(rank.device);
    cudaFree(rank.memory);
  }
  if (state_ != nullptr) cudaFreeHost(state_);
}
