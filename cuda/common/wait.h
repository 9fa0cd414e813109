// Waiting for a device by asking it again and again: no lock is held meanwhile, a lost device is noticed, and a wait
// has an end.
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>

#include "common/error.h"

namespace heddle::cuda {

// Until query() is another answer than cudaErrorNotReady, which is then checked as Check(answer, what) does. Whether
// that came within `timeout`; query() is asked once in any case.
template <typename Query>
bool WaitUntilReady(const Query& query, std::chrono::microseconds timeout, const char* what) {
  using std::chrono::microseconds;
  // About what a sleep costs beyond its length; a wait that ends sooner never sleeps.
  constexpr microseconds kSpinTime{30};
  constexpr microseconds kFirstSleep{5};
  constexpr microseconds kLongestSleep{50};
  const auto start = std::chrono::steady_clock::now();
  microseconds sleep = kFirstSleep;
  for (;;) {
    // Before the device is asked: a process that was stopped meanwhile may find it ready.
    const auto waited = std::chrono::duration_cast<microseconds>(std::chrono::steady_clock::now() - start);
    const cudaError_t answer = query();
    if (answer != cudaErrorNotReady) {
      Check(answer, what);
      return true;
    }
    cudaGetLastError();
    if (waited >= timeout) return false;
    if (waited < kSpinTime) continue;
    std::this_thread::sleep_for(sleep);
    sleep = std::min(2 * sleep, kLongestSleep);
  }
}

}  // namespace heddle::cuda
