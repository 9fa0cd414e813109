// How a thread waits for what another thread is about to do: spin for a moment, then yield, then park.
//
// A waiter polls a condition over atomics. Whoever makes the condition true calls NotifyAll, which costs one atomic
// load while nobody is parked. Any number of threads may wait and notify at the same time.
//
// No wake-up is lost as long as both the store that makes the condition true and the condition's loads are
// memory_order_seq_cst: a notifier that sees no parked thread has then stored before that thread looks once more.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace heddle {

class Backoff {
 public:
  using Clock = std::chrono::steady_clock;

  // `oversubscribed`: more threads compute than there are cores, so spinning would only keep the awaited one waiting.
  // `poll_time`: how long to spin and yield at least before parking; where a wake-up would come late for the next wait,
  // longer than such waits usually take.
  explicit Backoff(bool oversubscribed, std::chrono::microseconds poll_time = {})
      : oversubscribed_(oversubscribed), poll_time_(poll_time) {}
  Backoff(const Backoff&) = delete;
  Backoff& operator=(const Backoff&) = delete;

  // Returns once ready() is true.
  template <typename Ready>
  void Wait(const Ready& ready) {
    if (Poll(ready)) return;
    Park([&](std::unique_lock<std::mutex>& lock) {
      parked_cv_.wait(lock, ready);
      return true;
    });
  }

  // Returns whether ready() became true before `timeout` had passed, beside the time of polling. Time in which this
  // thread itself was held up (a stopped process, a frozen container) hardly counts: whoever is awaited was probably
  // held up with it.
  template <typename Ready>
  bool WaitFor(Clock::duration timeout, const Ready& ready) {
    if (Poll(ready)) return true;
    return Park([&](std::unique_lock<std::mutex>& lock) {
      for (Clock::duration left = timeout; left > Clock::duration::zero(); left -= kWaitSlice) {
        if (parked_cv_.wait_for(lock, std::min<Clock::duration>(left, kWaitSlice), ready)) return true;
      }
      return false;
    });
  }

  // Wakes every parked waiter. Call after making the condition true.
  void NotifyAll() {
    if (num_parked_.load(std::memory_order_seq_cst) == 0) return;
    // Taking the lock waits for a waiter that has looked at the condition and is about to sleep.
    { const std::lock_guard<std::mutex> lock(mutex_); }
    parked_cv_.notify_all();
  }

 private:
  // About as long as waking a parked thread takes.
  static constexpr std::chrono::microseconds kSpinTime{30};
  static constexpr int kPausesPerClockRead = 32;
  // The most that one wake-up takes off a timeout.
  static constexpr std::chrono::milliseconds kWaitSlice{100};
  // A yield costs about half a microsecond when no other thread wants the core.
  static constexpr int kNumYields = 200;

  static void Pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  // Spins and yields; whether ready() became true.
  template <typename Ready>
  bool Poll(const Ready& ready) const {
    if (ready()) return true;
    const Clock::time_point start = Clock::now();
    if (!oversubscribed_) {
      do {
        for (int i = 0; i < kPausesPerClockRead; ++i) {
          Pause();
          if (ready()) return true;
        }
      } while (Clock::now() - start < kSpinTime);
    }
    for (int i = 0; i < kNumYields || Clock::now() - start < poll_time_; ++i) {
      std::this_thread::yield();
      if (ready()) return true;
    }
    return false;
  }

  template <typename Sleep>
  bool Park(const Sleep& sleep) {
    num_parked_.fetch_add(1, std::memory_order_seq_cst);
    bool ready;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      ready = sleep(lock);
    }
    num_parked_.fetch_sub(1, std::memory_order_relaxed);
    return ready;
  }

  const bool oversubscribed_;
  const std::chrono::microseconds poll_time_;
  std::atomic<int> num_parked_{0};
  std::mutex mutex_;
  std::condition_variable parked_cv_;
};

}  // namespace heddle
