#include "device/cuda_stream.h"

#include <algorithm>
#include <exception>

#include "base/error.h"

namespace heddle {
namespace {

// How long a cancelled engine waits for the device to be asked again.
constexpr int64_t kPollMicroseconds = 20'000;

std::shared_ptr<HeddleCudaStream> CreateStream(int device, int64_t workspace_bytes) {
  const HeddleCudaApi& api = CudaApi();
  HeddleCudaStream* stream = nullptr;
  CheckCuda(api.stream_create(device, workspace_bytes, &stream));
  return {stream, [&api](HeddleCudaStream* s) { api.stream_destroy(s); }};
}

}  // namespace

CudaEvent::CudaEvent(std::shared_ptr<HeddleCudaStream> stream) : stream_(std::move(stream)) {
  HeddleCudaEvent* event = nullptr;
  CheckCuda(CudaApi().event_create(stream_.get(), &event));
  event_.reset(event);
}

void CudaEvent::Record() {
  CheckCuda(CudaApi().event_record(stream_.get(), event_.get()));
  recorded_ = true;
}

void CudaEvent::Wait(const std::atomic<bool>* cancelled, std::chrono::milliseconds timeout,
                     const std::function<void()>& check) const {
  if (!recorded_) return;
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    const HeddleCudaStatus status = CudaApi().event_wait(event_.get(), kPollMicroseconds);
    if (status != kHeddleCudaTimeout) return CheckCuda(status);
    if (cancelled != nullptr && cancelled->load(std::memory_order_relaxed)) {
      throw Error(ErrorCode::kCancelled, "the step was cancelled");
    }
    if (check) check();
    if (timeout.count() > 0 && std::chrono::steady_clock::now() - start > timeout) {
      throw Error(ErrorCode::kCommTimeout,
                  "the GPU did not finish its work within " + std::to_string(timeout.count()) + " ms");
    }
  }
}

std::chrono::nanoseconds CudaEvent::TimeSince(const CudaEvent& earlier) const {
  double seconds = 0;
  CheckCuda(CudaApi().event_elapsed(earlier.event_.get(), event_.get(), &seconds));
  return std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
}

CudaStream::CudaStream(int device, int64_t workspace_bytes)
    : handle_(CreateStream(device, workspace_bytes)), event_(handle_) {}

std::shared_ptr<void> CudaStream::Allocate(size_t bytes) {
  const HeddleCudaApi& api = CudaApi();
  void* memory = nullptr;
  const auto size = static_cast<int64_t>(std::max<size_t>(bytes, 1));
  CheckCuda(api.allocate(get(), size, &memory));
  std::shared_ptr<void> owner(memory, [stream = handle_, &api](void* p) { api.free(stream.get(), p); });
  CheckCuda(api.fill(get(), memory, 0, size));
  return owner;
}

std::shared_ptr<void> CudaStream::AllocatePinned(size_t bytes) const {
  const HeddleCudaApi& api = CudaApi();
  void* memory = nullptr;
  CheckCuda(api.allocate_host(get(), static_cast<int64_t>(std::max<size_t>(bytes, 1)), &memory));
  return {memory, [stream = handle_, &api](void* p) { api.free_host(stream.get(), p); }};
}

void CudaStream::Copy(void* to, const void* from, size_t bytes) const {
  CheckCuda(CudaApi().copy(get(), to, from, static_cast<int64_t>(bytes)));
}

void CudaStream::CopyRows(void* to, int64_t to_stride, const void* from, int64_t from_stride, int64_t row_bytes,
                          int64_t num_rows) const {
  if (to_stride == row_bytes && from_stride == row_bytes) {
    return Copy(to, from, static_cast<size_t>(num_rows * row_bytes));
  }
  CheckCuda(CudaApi().copy_2d(get(), to, to_stride, from, from_stride, row_bytes, num_rows));
}

CudaGraph CudaStream::Capture(const std::function<void()>& launch) {
  CheckCuda(CudaApi().capture_begin(get()));
  is_capturing_ = true;
  std::exception_ptr failure;
  try {
    launch();
  } catch (...) {
    failure = std::current_exception();
  }
  is_capturing_ = false;
  HeddleCudaGraph* graph = nullptr;
  const HeddleCudaStatus status = CudaApi().capture_end(get(), &graph);
  CudaGraph owner(graph);
  if (failure) std::rethrow_exception(failure);
  CheckCuda(status);
  return owner;
}

void CudaStream::Synchronize(const std::atomic<bool>* cancelled, std::chrono::milliseconds timeout) {
  event_.Record();
  event_.Wait(cancelled, timeout);
}

}  // namespace heddle
