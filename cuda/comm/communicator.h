// A rank's NCCL communicator, with a deadline on every wait and an end that does not hang.
//
// NCCL's calls are all non-blocking: a thread of NCCL's does the work, and Run waits until it is launched, so that what
// comes next on the stream comes after it. mutex_ keeps NCCL to one caller at a time and is never held during a wait.
//
// After a failure ncclCommAbort runs on a thread of its own: its first act ends the kernels that wait for peers, but it
// returns only once every graph with captured collectives is gone.
#pragma once

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <thread>

#include "comm/nccl_library.h"
#include "comm/nccl_options.h"
#include "common/stream.h"

struct HeddleCudaCommunicator {
 public:
  HeddleCudaCommunicator(const HeddleCudaStream& stream, const char id[NCCL_UNIQUE_ID_BYTES], int size, int rank,
                         const HeddleCudaNcclOptions& options, std::chrono::microseconds timeout);
  ~HeddleCudaCommunicator();
  HeddleCudaCommunicator(const HeddleCudaCommunicator&) = delete;
  HeddleCudaCommunicator& operator=(const HeddleCudaCommunicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }

  void Connect();
  // The communicator as HeddleCudaApi::comm_async_error has it: throws unless all is well.
  void CheckAlive();
  void Abort() { Break(kHeddleCudaAborted, "the communicator was aborted"); }
  // Ends the communicator; whether nothing of NCCL's uses it any longer. If not, it must not be deleted.
  bool Finish();

  // values[rank] = value of each rank. Blocks.
  void Exchange(HeddleCudaStream& stream, int64_t value, int64_t* values);
  void Barrier(HeddleCudaStream& stream);

  // Launches with call(nccl, comm), which makes NCCL calls and returns the last one's result or the first failure.
  // `what` names the op in messages.
  template <typename Call>
  void Run(const HeddleCudaStream& stream, const char* what, const Call& call) {
    heddle::cuda::Require(stream.properties.device == device_, "a stream of another device than the communicator's");
    RunAnywhere(what, call);
  }

 private:
  static constexpr int kMaxRanks = 8;

  template <typename Call>
  void RunAnywhere(const char* what, const Call& call) {
    ncclResult_t result;
    {
      const std::lock_guard lock(mutex_);
      RequireConnected();
      result = call(heddle::cuda::Nccl(), comm_);
    }
    Settle(what, result);
  }

  // Both with mutex_ held. They throw the failure that stands.
  void RequireAlive() const;
  void RequireConnected() const;
  // Waits until NCCL has done what `result` is the beginning of.
  void Settle(const char* what, ncclResult_t result);
  // Waits until the stream has ended what it has, or the communicator is broken.
  void Await(const char* what, cudaStream_t stream);
  void MissDeadline(const char* what);

  // The first failure stands.
  void BreakForNccl(ncclResult_t result, const char* what);
  void Break(HeddleCudaStatus status, std::string reason);
  void AbortInBackground(ncclComm_t comm);

  const int device_;
  const int size_;
  const int rank_;
  const std::chrono::microseconds timeout_;
  ncclUniqueId id_;
  heddle::cuda::NcclNames names_;
  ncclConfig_t config_;
  int64_t* exchanged_ = nullptr;  // page-locked: this rank's number, then everybody's

  std::mutex mutex_;
  ncclComm_t comm_ = nullptr;                 // null before Connect, and again once broken
  HeddleCudaStatus failure_ = kHeddleCudaOk;  // guarded by mutex_, as is its reason
  std::string reason_;
  std::thread aborter_;
  std::atomic<bool> aborted_{false};  // the aborter has ended
};

namespace heddle::cuda {

void GetUniqueId(char id[NCCL_UNIQUE_ID_BYTES]);
void DestroyCommunicator(HeddleCudaCommunicator* comm);

// See the table's functions.
void AllReduceSum(HeddleCudaStream& stream, HeddleCudaCommunicator& comm, const HeddleCudaMatrix& x);
void GatherColumns(HeddleCudaStream& stream, HeddleCudaCommunicator& comm, const HeddleCudaGatherColumns& op);
void Broadcast(HeddleCudaStream& stream, HeddleCudaCommunicator& comm, int32_t root, void* data, int64_t bytes);

}  // namespace heddle::cuda
