// Points in streams.
#pragma once

#include "common/stream.h"

// All events keep the time: one kind is enough for waiting and for measuring, and a rank records only a few a step.
struct HeddleCudaEvent {
  int device = 0;
  cudaEvent_t event = nullptr;
};

namespace heddle::cuda {

HeddleCudaEvent* CreateEvent(const HeddleCudaStream& stream);
void DestroyEvent(HeddleCudaEvent* event);
// While the stream captures, the graph records the event each time that it runs.
void RecordEvent(HeddleCudaStream& stream, HeddleCudaEvent& event);
// As WaitUntilReady. An event that was never recorded counts as reached. Any thread.
void WaitForEvent(const HeddleCudaEvent& event, int64_t timeout_us);
double SecondsBetween(const HeddleCudaEvent& from, const HeddleCudaEvent& to);

}  // namespace heddle::cuda
