#include "common/event.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "common/device.h"

namespace heddle::cuda {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;

// About what a sleep costs beyond its length; a wait that ends sooner never sleeps.
constexpr microseconds kSpinTime{30};
constexpr microseconds kFirstSleep{5};
constexpr microseconds kLongestSleep{50};

bool IsReached(const HeddleCudaEvent& event) {
  const cudaError_t error = cudaEventQuery(event.event);
  if (error == cudaErrorNotReady) {
    cudaGetLastError();
    return false;
  }
  Check(error, "cudaEventQuery");
  return true;
}

}  // namespace

HeddleCudaEvent* CreateEvent(const HeddleCudaStream& stream) {
  auto event = std::make_unique<HeddleCudaEvent>();
  event->device = stream.properties.device;
  HEDDLE_CUDA_CHECK(cudaEventCreateWithFlags(&event->event, cudaEventDefault));
  return event.release();
}

void DestroyEvent(HeddleCudaEvent* event) {
  if (event == nullptr) return;
  const std::unique_ptr<HeddleCudaEvent> owner(event);
  SetDevice(event->device);
  HEDDLE_CUDA_CHECK(cudaEventDestroy(event->event));
}

void RecordEvent(HeddleCudaStream& stream, HeddleCudaEvent& event) {
  Require(event.device == stream.properties.device, "event_record: the event is of another device");
  const unsigned flags = stream.capturing ? cudaEventRecordExternal : cudaEventRecordDefault;
  HEDDLE_CUDA_CHECK(cudaEventRecordWithFlags(event.event, stream.stream, flags));
}

void WaitForEvent(const HeddleCudaEvent& event, int64_t timeout_us) {
  SetDevice(event.device);
  const Clock::time_point start = Clock::now();
  microseconds sleep = kFirstSleep;
  while (!IsReached(event)) {
    const auto waited = std::chrono::duration_cast<microseconds>(Clock::now() - start);
    if (waited.count() >= timeout_us) {
      Fail(kHeddleCudaTimeout, "an event was not reached within " + std::to_string(timeout_us) + " microseconds");
    }
    if (waited < kSpinTime) continue;
    std::this_thread::sleep_for(sleep);
    sleep = std::min(2 * sleep, kLongestSleep);
  }
}

double SecondsBetween(const HeddleCudaEvent& from, const HeddleCudaEvent& to) {
  SetDevice(from.device);
  float milliseconds = 0;
  HEDDLE_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, from.event, to.event));
  return milliseconds * 1e-3;
}

}  // namespace heddle::cuda
