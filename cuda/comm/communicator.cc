#include "comm/communicator.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <system_error>
#include <utility>

#include "comm/nccl_environment.h"
#include "common/device.h"
#include "common/memory.h"

using heddle::cuda::Check;
using heddle::cuda::Fail;
using heddle::cuda::Failure;
using heddle::cuda::Nccl;
using heddle::cuda::NcclLibrary;
using heddle::cuda::NcclMessage;
using heddle::cuda::Require;
using heddle::cuda::SetDevice;
using heddle::cuda::StatusOfLibraryFailure;

namespace {

constexpr std::chrono::hours kLongestTimeout{24};

// The pauses of one wait. Launching takes NCCL's thread some tens of microseconds, which are worth staying awake for.
class Patience {
 public:
  explicit Patience(std::chrono::microseconds timeout) : end_(Clock::now() + timeout) {}

  // Pauses for a moment, unless the time is up: then false.
  bool Wait() const {
    const Clock::time_point now = Clock::now();
    if (now >= end_) return false;
    if (now - start_ < kAwake) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kNap);
    }
    return true;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::microseconds kAwake{1000};
  static constexpr std::chrono::microseconds kNap{50};

  const Clock::time_point start_ = Clock::now();
  const Clock::time_point end_;
};

}  // namespace

HeddleCudaCommunicator::HeddleCudaCommunicator(const HeddleCudaStream& stream, const char id[NCCL_UNIQUE_ID_BYTES],
                                               int size, int rank, const HeddleCudaNcclOptions& options,
                                               std::chrono::microseconds timeout)
    : device_(stream.properties.device),
      size_(size),
      rank_(rank),
      timeout_(timeout),
      config_(heddle::cuda::NcclConfig(options, names_)) {
  Require(size >= 1 && size <= kMaxRanks, "comm_create: not 1 to 8 ranks");
  Require(rank >= 0 && rank < size, "comm_create: no such rank");
  Require(timeout.count() > 0 && timeout <= kLongestTimeout, "comm_create: a timeout of nothing or above a day");
  std::memcpy(id_.internal, id, sizeof(id_.internal));
  exchanged_ = static_cast<int64_t*>(heddle::cuda::AllocateHost((1 + kMaxRanks) * int64_t{sizeof(int64_t)}));
}

HeddleCudaCommunicator::~HeddleCudaCommunicator() { cudaFreeHost(exchanged_); }

void HeddleCudaCommunicator::Connect() {
  SetDevice(device_);
  ncclResult_t result;
  {
    const std::lock_guard lock(mutex_);
    RequireAlive();
    Require(comm_ == nullptr, "comm_connect: the communicator is connected already");
    result = Nccl().comm_init_rank_config(&comm_, size_, id_, rank_, &config_);
  }
  Settle("comm_connect", result);
}

void HeddleCudaCommunicator::CheckAlive() {
  ncclResult_t state = ncclSuccess;
  {
    const std::lock_guard lock(mutex_);
    RequireAlive();
    if (comm_ == nullptr) return;
    const ncclResult_t result = Nccl().comm_get_async_error(comm_, &state);
    if (result != ncclSuccess) state = result;
  }
  if (state == ncclSuccess || state == ncclInProgress) return;
  BreakForNccl(state, "a collective");
  const std::lock_guard lock(mutex_);
  RequireAlive();
}

bool HeddleCudaCommunicator::Finish() {
  bool connected;
  {
    const std::lock_guard lock(mutex_);
    connected = comm_ != nullptr;
  }
  if (connected) {
    try {
      RunAnywhere("comm_destroy", [](const NcclLibrary& nccl, ncclComm_t comm) { return nccl.comm_finalize(comm); });
      const std::lock_guard lock(mutex_);
      RequireConnected();
      Nccl().comm_destroy(std::exchange(comm_, nullptr));
      return true;
    } catch (...) {
      // Whoever failed has broken the communicator, and what is left is to wait for its aborter.
    }
  }
  if (!aborter_.joinable()) return true;
  const Patience patience(timeout_);
  while (!aborted_) {
    if (patience.Wait()) continue;
    aborter_.detach();
    return false;
  }
  aborter_.join();
  return true;
}

void HeddleCudaCommunicator::Exchange(HeddleCudaStream& stream, int64_t value, int64_t* values) {
  static constexpr const char* kName = "comm_exchange";
  Require(!stream.capturing, "comm_exchange: not in a graph");
  constexpr int64_t kBytes = sizeof(int64_t);
  auto* device = static_cast<int64_t*>(stream.Scratch((1 + size_) * kBytes));
  exchanged_[0] = value;
  heddle::cuda::Copy(stream, device, exchanged_, kBytes);
  Run(stream, kName, [&](const NcclLibrary& nccl, ncclComm_t comm) {
    return nccl.all_gather(device, device + 1, 1, ncclInt64, comm, stream.stream);
  });
  heddle::cuda::Copy(stream, exchanged_ + 1, device + 1, size_ * kBytes);
  Await(kName, stream.stream);
  std::copy_n(exchanged_ + 1, size_, values);
}

void HeddleCudaCommunicator::Barrier(HeddleCudaStream& stream) {
  int64_t arrived[kMaxRanks];
  Exchange(stream, 0, arrived);
}

void HeddleCudaCommunicator::RequireAlive() const {
  if (failure_ != kHeddleCudaOk) Fail(failure_, reason_);
}

void HeddleCudaCommunicator::RequireConnected() const {
  RequireAlive();
  Require(comm_ != nullptr, "the communicator is not connected yet");
}

void HeddleCudaCommunicator::Settle(const char* what, ncclResult_t result) {
  const Patience patience(timeout_);
  while (result == ncclInProgress) {
    if (!patience.Wait()) MissDeadline(what);
    const std::lock_guard lock(mutex_);
    RequireConnected();
    const ncclResult_t failure = Nccl().comm_get_async_error(comm_, &result);
    if (failure != ncclSuccess) result = failure;
  }
  if (result == ncclSuccess) return;
  BreakForNccl(result, what);
  const std::lock_guard lock(mutex_);
  RequireAlive();
}

void HeddleCudaCommunicator::Await(const char* what, cudaStream_t stream) {
  const Patience patience(timeout_);
  for (;;) {
    const cudaError_t state = cudaStreamQuery(stream);
    // Asked second: kernels of a broken communicator end as well.
    CheckAlive();
    if (state != cudaErrorNotReady) return Check(state, "cudaStreamQuery");
    cudaGetLastError();
    if (!patience.Wait()) MissDeadline(what);
  }
}

void HeddleCudaCommunicator::MissDeadline(const char* what) {
  const int64_t limit = std::chrono::duration_cast<std::chrono::milliseconds>(timeout_).count();
  Break(kHeddleCudaTimeout, "rank " + std::to_string(rank_) + " waited in " + what + " longer than the limit of " +
                                std::to_string(limit) + " ms for its peers");
  const std::lock_guard lock(mutex_);
  RequireAlive();
}

void HeddleCudaCommunicator::BreakForNccl(ncclResult_t result, const char* what) {
  cudaSetDevice(device_);
  Break(StatusOfLibraryFailure(kHeddleCudaFailed), NcclMessage(result, what));
}

void HeddleCudaCommunicator::Break(HeddleCudaStatus status, std::string reason) {
  const std::lock_guard lock(mutex_);
  if (failure_ != kHeddleCudaOk) return;
  failure_ = status;
  reason_ = std::move(reason);
  if (comm_ != nullptr) AbortInBackground(std::exchange(comm_, nullptr));
}

void HeddleCudaCommunicator::AbortInBackground(ncclComm_t comm) {
  const auto abort = [this, comm] {
    cudaSetDevice(device_);
    Nccl().comm_abort(comm);
    aborted_ = true;
  };
  try {
    aborter_ = std::thread(abort);
  } catch (const std::system_error&) {
    abort();  // the system has no thread left
  }
}

namespace heddle::cuda {

void GetUniqueId(char id[NCCL_UNIQUE_ID_BYTES]) {
  ncclUniqueId made;
  const ncclResult_t result = Nccl().get_unique_id(&made);
  // Only now: NCCL's first act is to add variables from its configuration files.
  RememberNcclEnvironment();
  if (result != ncclSuccess) Fail(kHeddleCudaFailed, NcclMessage(result, "comm_unique_id"));
  std::memcpy(id, made.internal, sizeof(made.internal));
}

void DestroyCommunicator(HeddleCudaCommunicator* comm) {
  if (comm == nullptr) return;
  std::unique_ptr<HeddleCudaCommunicator> owner(comm);
  if (owner->Finish()) return;
  static_cast<void>(owner.release());
  Fail(kHeddleCudaTimeout, "the communicator does not end, perhaps for a graph that has captured its collectives");
}

}  // namespace heddle::cuda
