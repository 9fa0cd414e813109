#include "common/event.h"

#include "common/device.h"
#include "common/wait.h"

namespace heddle::cuda {

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
  const auto query = [&] { return cudaEventQuery(event.event); };
  if (WaitUntilReady(query, std::chrono::microseconds(timeout_us), "cudaEventQuery")) return;
  Fail(kHeddleCudaTimeout, "an event was not reached within " + std::to_string(timeout_us) + " microseconds");
}

double SecondsBetween(const HeddleCudaEvent& from, const HeddleCudaEvent& to) {
  SetDevice(from.device);
  float milliseconds = 0;
  HEDDLE_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, from.event, to.event));
  return milliseconds * 1e-3;
}

}  // namespace heddle::cuda
