// A fixed team of threads: the one that calls Run, and num_threads - 1 helpers. It serves as the compute threads of a
// rank, and as the ranks of a process.
//
// Helpers spin briefly for the next piece of work and then park, so that an idle engine uses no processor. When the
// process has more compute threads than the machine has cores (`oversubscribed`), they yield instead of spinning.
// Work is given to it by one thread at a time, its owner. Construction and destruction on any thread.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

namespace heddle {

// The part [begin, end) of `count` items that `thread` of `num_threads` takes; parts differ by one item at most.
struct WorkRange {
  int64_t begin;
  int64_t end;
};
constexpr WorkRange SplitWork(int64_t count, int thread, int num_threads) {
  return {count * thread / num_threads, count * (thread + 1) / num_threads};
}

class ThreadPool {
 public:
  // REQUIRES: num_threads >= 1.
  ThreadPool(int num_threads, bool oversubscribed);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const;

  // Calls task(thread) once for each thread in [0, num_threads), all at the same time, and returns when all have
  // returned. The caller runs thread 0. `task` must split work by output, never by reduction. When tasks throw, one of
  // the exceptions is thrown on once all have returned. With one thread it is a plain call.
  template <typename Task>
  void Run(const Task& task) {
    RunErased(&Call<Task>, &task, Helpers::kAll);
  }

  // Like Run for a `task` that takes work from a common supply. Helpers that have not begun when thread 0 is done are
  // left out: where the system has lent their core to another thread, nobody waits for it to come back. REQUIRES:
  // task(0) returns only when no work is left to take, or throws.
  template <typename Task>
  void RunShared(const Task& task) {
    RunErased(&Call<Task>, &task, Helpers::kInTime);
  }

  // Calls task(thread, begin, end) for pieces of at most `piece` items that make up [0, count). Each thread works
  // upwards through its own part, as SplitWork cuts it, and then takes pieces of the others': a core that is slower for
  // a moment holds nobody up, and what a thread reads stays in order, and on its own memory, as long as it keeps pace.
  // When tasks throw, one of the exceptions is thrown on; pieces may then be left undone. REQUIRES: piece >= 1.
  template <typename Task>
  void RunPieces(int64_t count, int64_t piece, const Task& task) {
    const std::span<Part> parts = SetParts(count);
    RunShared([&](int thread) {
      const auto num_parts = static_cast<int>(parts.size());
      for (int i = 0; i < num_parts; ++i) {
        Part& part = parts[static_cast<size_t>((thread + i) % num_parts)];
        for (int64_t begin; (begin = part.next.fetch_add(piece, std::memory_order_relaxed)) < part.end;) {
          task(thread, begin, std::min(begin + piece, part.end));
        }
      }
    });
  }

 private:
  // Of RunPieces: what is left of one thread's part.
  struct alignas(64) Part {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };
  std::span<Part> SetParts(int64_t count);

  using Function = void (*)(const void* task, int thread);
  template <typename Task>
  static void Call(const void* task, int thread) {
    (*static_cast<const Task*>(task))(thread);
  }
  enum class Helpers { kAll, kInTime };
  void RunErased(Function function, const void* task, Helpers helpers);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace heddle
