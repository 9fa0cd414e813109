#include "device/cuda_stream.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/error.h"

namespace heddle {
namespace {

// How long a cancelled engine waits for the device to be asked again.
constexpr int64_t kPollMicroseconds = 20'000;

}  // namespace

CudaStreamHandle::CudaStreamHandle(int device, int64_t workspace_bytes, WaitLimits wait_limits)
    : limits(std::move(wait_limits)) {
  const auto timeout_us = std::chrono::microseconds(limits.timeout).count();
  CheckCuda(CudaApi().stream_create(device, workspace_bytes, timeout_us, &stream));
}

CudaStreamHandle::~CudaStreamHandle() {
  if (!is_abandoned) CudaApi().stream_destroy(stream);
}

CudaEvent::CudaEvent(std::shared_ptr<CudaStreamHandle> handle) : handle_(std::move(handle)) {
  HeddleCudaEvent* event = nullptr;
  CheckCuda(CudaApi().event_create(handle_->stream, &event));
  event_.reset(event);
}

void CudaEvent::Record() {
  CheckCuda(CudaApi().event_record(handle_->stream, event_.get()));
  recorded_ = true;
}

void CudaEvent::Wait(const std::function<void()>& check) const {
  const WaitLimits& limits = handle_->limits;
  WaitWithin(limits.timeout, [&] {
    if (limits.cancelled != nullptr && limits.cancelled->load(std::memory_order_relaxed)) {
      throw Error(ErrorCode::kCancelled, "the step was cancelled");
    }
    if (check) check();
    if (limits.check) limits.check();
  });
}

void CudaEvent::WaitWithin(std::chrono::milliseconds timeout, const std::function<void()>& check) const {
  if (!recorded_) return;
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    // Before the device is asked: a process that was stopped meanwhile may find it ready.
    const bool is_late = std::chrono::steady_clock::now() - start > timeout;
    const HeddleCudaStatus status = CudaApi().event_wait(event_.get(), kPollMicroseconds);
    if (status != kHeddleCudaTimeout) return CheckCuda(status);
    check();
    if (is_late) {
      throw Error(ErrorCode::kCommTimeout,
                  "the GPU did not finish its work within " + std::to_string(timeout.count()) + " ms");
    }
  }
}

void CudaEvent::CheckDevice() const {
  const HeddleCudaStatus status = CudaApi().event_wait(event_.get(), 0);
  if (status != kHeddleCudaTimeout) CheckCuda(status);
}

std::chrono::nanoseconds CudaEvent::TimeSince(const CudaEvent& earlier) const {
  double seconds = 0;
  CheckCuda(CudaApi().event_elapsed(earlier.event_.get(), event_.get(), &seconds));
  return std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9));
}

CudaStream::CudaStream(int device, int64_t workspace_bytes, WaitLimits limits)
    : handle_(std::make_shared<CudaStreamHandle>(device, workspace_bytes, std::move(limits))), event_(handle_) {}

// The stream's pool keeps what is given back to it.
void CudaStream::Reserve(size_t bytes) const {
  void* memory = nullptr;
  CheckCuda(CudaApi().allocate(get(), static_cast<int64_t>(bytes), &memory));
  CheckCuda(CudaApi().free(get(), memory));
}

std::shared_ptr<void> CudaStream::Allocate(size_t bytes) {
  const HeddleCudaApi& api = CudaApi();
  void* memory = nullptr;
  const auto size = static_cast<int64_t>(std::max<size_t>(bytes, 1));
  CheckCuda(api.allocate(get(), size, &memory));
  std::shared_ptr<void> owner(memory, [handle = handle_, &api](void* p) {
    if (!handle->is_abandoned) api.free(handle->stream, p);
  });
  CheckCuda(api.fill(get(), memory, 0, size));
  return owner;
}

std::shared_ptr<void> CudaStream::AllocatePinned(size_t bytes) const {
  const HeddleCudaApi& api = CudaApi();
  void* memory = nullptr;
  CheckCuda(api.allocate_host(get(), static_cast<int64_t>(std::max<size_t>(bytes, 1)), &memory));
  return {memory, [handle = handle_, &api](void* p) {
            if (!handle->is_abandoned) api.free_host(handle->stream, p);
          }};
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

void CudaStream::Synchronize() {
  event_.Record();
  event_.Wait();
}

void CudaStream::Drain() noexcept {
  try {
    event_.Record();
    event_.WaitWithin(handle_->limits.timeout, [] {});
  } catch (const Error& error) {
    // A device that is lost does nothing any more.
    if (error.code() == ErrorCode::kCommTimeout) handle_->is_abandoned = true;
  } catch (...) {
    handle_->is_abandoned = true;  // who knows
  }
}

}  // namespace heddle
