// Ranks as threads of the test's process.
#pragma once

#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace heddle::test {

// body(rank) on a thread for each of `size` ranks, until all have ended. What a rank throws calls `break_group`,
// one at a time, so that no rank waits for the one that threw; the first of all comes out here.
inline void RunOnRanks(int size, const std::function<void(int)>& body, const std::function<void()>& break_group) {
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        body(rank);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
        break_group();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace heddle::test
