// The steps of rank 0 on its GPU: when each is done, how long the host waited for it, and how long the device had
// nothing to do between one and the next.
//
// Rank thread only.
#pragma once

#include <array>
#include <chrono>
#include <functional>

#include "device/cuda_stream.h"

namespace heddle {

class StepClock {
 public:
  // Steps that may be begun and not waited for.
  static constexpr size_t kMaxSteps = 2;

  explicit StepClock(CudaStream& stream);

  // Before a step's first launch. REQUIRES: fewer than kMaxSteps were not waited for.
  void Begin();
  // After its last.
  void End();
  // Waits, as CudaEvent::Wait, for the end of the oldest step that was not waited for.
  void Wait(const std::function<void()>& check = nullptr);

  std::chrono::nanoseconds wait_time() const { return wait_time_; }
  // From the end of each step to the beginning of the next, whether or not there was anything to do.
  std::chrono::nanoseconds idle_time() const { return idle_time_; }

 private:
  struct Step {
    explicit Step(CudaStream& stream) : begin(stream.CreateEvent()), end(stream.CreateEvent()) {}
    CudaEvent begin;
    CudaEvent end;
  };
  static constexpr size_t kRing = kMaxSteps + 1;  // the one before the oldest is looked back at

  std::array<Step, kRing> steps_;
  size_t num_begun_ = 0;
  size_t num_waited_ = 0;
  std::chrono::nanoseconds wait_time_{0};
  std::chrono::nanoseconds idle_time_{0};
};

}  // namespace heddle
