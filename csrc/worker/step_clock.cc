#include "worker/step_clock.h"

#include "base/error.h"

namespace heddle {

StepClock::StepClock(CudaStream& stream) : steps_{Step(stream), Step(stream), Step(stream)} {}

void StepClock::Begin() {
  HEDDLE_CHECK(num_begun_ - num_waited_ < kMaxSteps, "too many steps under way");
  steps_[num_begun_ % kRing].begin.Record();
}

void StepClock::End() { steps_[num_begun_++ % kRing].end.Record(); }

void StepClock::Wait(const std::function<void()>& check) {
  HEDDLE_CHECK(num_waited_ < num_begun_, "no step has begun");
  const Step& step = steps_[num_waited_ % kRing];
  const auto start = std::chrono::steady_clock::now();
  step.end.Wait(check);
  wait_time_ += std::chrono::steady_clock::now() - start;
  if (num_waited_ > 0) idle_time_ += step.begin.TimeSince(steps_[(num_waited_ - 1) % kRing].end);
  ++num_waited_;
}

}  // namespace heddle
