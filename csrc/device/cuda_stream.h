// A rank's stream on a GPU, with the device memory that is taken from it.
//
// Used by the rank's thread. Memory that outlives this object keeps the stream behind it alive.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "device/buffer.h"
#include "device/cuda_library.h"

namespace heddle {

// What ends a wait for a stream's device before the device does. Asked every now and then, by whichever thread waits.
struct WaitLimits {
  const std::atomic<bool>* cancelled = nullptr;               // once set: kCancelled
  std::chrono::milliseconds timeout = std::chrono::hours(1);  // of one wait: kCommTimeout
  std::function<void()> check = nullptr;                      // throws when waiting is in vain
};

// A stream of the library, shared by all that came from it.
struct CudaStreamHandle {
  CudaStreamHandle(int device, int64_t workspace_bytes, WaitLimits wait_limits);
  ~CudaStreamHandle();
  CudaStreamHandle(const CudaStreamHandle&) = delete;
  CudaStreamHandle& operator=(const CudaStreamHandle&) = delete;

  HeddleCudaStream* stream = nullptr;
  const WaitLimits limits;
  // The device did not end its work in time and may still be at it: nothing that came from the stream is given back.
  bool is_abandoned = false;
};

// A point in a stream that the host can wait for. May outlive the stream object; waits within what the limits name.
class CudaEvent {
 public:
  explicit CudaEvent(std::shared_ptr<CudaStreamHandle> handle);

  void Record();
  // Until what was launched before Record is done; at once if it never was called. Fails as the stream's limits have
  // it, and as `check` does, if it is given, which is asked like theirs but before it: it may know better why waiting
  // is in vain. Fails with kRankFailed when the device is lost.
  void Wait(const std::function<void()>& check = nullptr) const;
  // Waits for nothing. Fails when the device is lost. Any thread that does not run beside Record.
  void CheckDevice() const;
  // What the device's clock counted between the two. REQUIRES: both were waited for.
  std::chrono::nanoseconds TimeSince(const CudaEvent& earlier) const;

 private:
  struct Deleter {
    void operator()(HeddleCudaEvent* event) const { CudaApi().event_destroy(event); }
  };

  friend class CudaStream;
  // Asks `check` while the device is not there yet.
  void WaitWithin(std::chrono::milliseconds timeout, const std::function<void()>& check) const;

  std::shared_ptr<CudaStreamHandle> handle_;
  std::unique_ptr<HeddleCudaEvent, Deleter> event_;
  bool recorded_ = false;
};

// What was launched while a stream was captured, to be launched again as a whole.
class CudaGraph {
 public:
  explicit CudaGraph(HeddleCudaGraph* graph) : graph_(graph) {}
  HeddleCudaGraph* get() const { return graph_.get(); }

 private:
  struct Deleter {
    void operator()(HeddleCudaGraph* graph) const { CudaApi().graph_destroy(graph); }
  };
  std::unique_ptr<HeddleCudaGraph, Deleter> graph_;
};

class CudaStream : public Allocator {
 public:
  // Fails with kInvalidArgument when there is no such device, kInsufficientMemory.
  CudaStream(int device, int64_t workspace_bytes, WaitLimits limits = {});

  HeddleCudaStream* get() const { return handle_->stream; }

  // Takes this much from the device at once, for allocations to come: quicker than piece by piece. Fails with
  // kInsufficientMemory.
  void Reserve(size_t bytes) const;
  // Zeroed device memory.
  std::shared_ptr<void> Allocate(size_t bytes) override;
  // Page-locked host memory, contents unspecified: what copies beside other work need.
  std::shared_ptr<void> AllocatePinned(size_t bytes) const;

  // In the order of the stream; host memory that is not page-locked may be reused at once.
  void Copy(void* to, const void* from, size_t bytes) const;

  // `num_rows` rows of `row_bytes`; strides in bytes.
  void CopyRows(void* to, int64_t to_stride, const void* from, int64_t from_stride, int64_t row_bytes,
                int64_t num_rows) const;

  CudaEvent CreateEvent() const { return CudaEvent(handle_); }

  // Records what `launch` launches instead of running it. Nothing may be waited for, or done for the first time,
  // meanwhile.
  CudaGraph Capture(const std::function<void()>& launch);
  bool is_capturing() const { return is_capturing_; }
  void Launch(const CudaGraph& graph) const { CheckCuda(CudaApi().graph_launch(get(), graph.get())); }

  // Waits for all that was launched, as CudaEvent::Wait.
  void Synchronize();
  // For destructors: waits for all that was launched, whatever was cancelled. Once that takes longer than the limits
  // allow, what came from the stream stays where it is, since the device may still use it.
  void Drain() noexcept;
  // Whether that was so: then nothing else that the device may use is to be given back either.
  bool is_abandoned() const { return handle_->is_abandoned; }

 private:
  std::shared_ptr<CudaStreamHandle> handle_;
  CudaEvent event_;
  bool is_capturing_ = false;
};

}  // namespace heddle
