// A fixed team of threads: the one that calls Run, and num_threads - 1 helpers. It serves as the compute threads of a
// rank, and as the ranks of a process.
//
// Helpers spin briefly for the next piece of work and then park, so that an idle engine uses no processor. When the
// process has more compute threads than the machine has cores (`oversubscribed`), they yield instead of spinning.
// Run is called by one thread at a time: the team's owner. Construction and destruction on any thread.
#pragma once

#include <cstdint>
#include <memory>

namespace heddle {

class ThreadPool {
 public:
  // REQUIRES: num_threads >= 1.
  ThreadPool(int num_threads, bool oversubscribed);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const;

  // Calls task(thread) once for each thread in [0, num_threads) and returns when all have returned. The caller runs
  // thread 0. `task` must split work by output, never by reduction. When tasks throw, one of the exceptions is thrown
  // on once all have returned. With one thread it is a plain call.
  template <typename Task>
  void Run(const Task& task) {
    RunErased([](const void* t, int thread) { (*static_cast<const Task*>(t))(thread); }, &task);
  }

 private:
  using Function = void (*)(const void* task, int thread);
  void RunErased(Function function, const void* task);

  struct State;
  std::unique_ptr<State> state_;
};

// The part [begin, end) of `count` items that `thread` of `num_threads` takes; parts differ by one item at most.
struct WorkRange {
  int64_t begin;
  int64_t end;
};
constexpr WorkRange SplitWork(int64_t count, int thread, int num_threads) {
  return {count * thread / num_threads, count * (thread + 1) / num_threads};
}

}  // namespace heddle
