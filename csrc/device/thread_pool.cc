#include "device/thread_pool.h"

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/backoff.h"
#include "base/error.h"

namespace heddle {

struct ThreadPool::State {
  explicit State(bool oversubscribed) : work_posted(oversubscribed), work_done(oversubscribed) {}

  void Help(int thread);
  void RunTask(int thread);
  void Stop();

  std::vector<std::thread> helpers;
  std::vector<Part> parts;  // one a thread

  // Written by Run while every helper waits; published by `num_posted`.
  Function function = nullptr;
  const void* task = nullptr;
  bool stopping = false;

  Backoff work_posted;
  alignas(64) std::atomic<uint64_t> num_posted{0};  // pieces of work ever posted
  Backoff work_done;
  alignas(64) std::atomic<int> num_running{0};  // helpers that have not finished the piece of work

  std::mutex failure_mutex;
  std::exception_ptr failure;  // the first one of this piece of work
};

void ThreadPool::State::RunTask(int thread) {
  try {
    function(task, thread);
  } catch (...) {
    const std::lock_guard<std::mutex> lock(failure_mutex);
    if (!failure) failure = std::current_exception();
  }
}

void ThreadPool::State::Help(int thread) {
  for (uint64_t next = 1;; ++next) {
    work_posted.Wait([&] { return num_posted.load() >= next; });
    if (stopping) return;
    RunTask(thread);
    if (num_running.fetch_sub(1) == 1) work_done.NotifyAll();
  }
}

void ThreadPool::State::Stop() {
  stopping = true;
  num_posted.fetch_add(1);
  work_posted.NotifyAll();
  for (std::thread& helper : helpers) helper.join();
}

ThreadPool::ThreadPool(int num_threads, bool oversubscribed) : state_(std::make_unique<State>(oversubscribed)) {
  HEDDLE_CHECK(num_threads >= 1, std::to_string(num_threads));
  state_->parts = std::vector<Part>(static_cast<size_t>(num_threads));
  try {
    state_->helpers.reserve(static_cast<size_t>(num_threads) - 1);
    for (int thread = 1; thread < num_threads; ++thread) {
      state_->helpers.emplace_back([state = state_.get(), thread] { state->Help(thread); });
    }
  } catch (const std::exception& error) {
    state_->Stop();
    throw Error(ErrorCode::kInsufficientMemory, "the system refused compute thread " +
                                                    std::to_string(state_->helpers.size() + 2) + " of " +
                                                    std::to_string(num_threads) + ": " + error.what());
  }
}

ThreadPool::~ThreadPool() { state_->Stop(); }

int ThreadPool::num_threads() const { return static_cast<int>(state_->helpers.size()) + 1; }

std::span<ThreadPool::Part> ThreadPool::SetParts(int64_t count) {
  for (int thread = 0; thread < num_threads(); ++thread) {
    const WorkRange range = SplitWork(count, thread, num_threads());
    Part& part = state_->parts[static_cast<size_t>(thread)];
    part.next.store(range.begin, std::memory_order_relaxed);
    part.end = range.end;
  }
  return state_->parts;
}

void ThreadPool::RunErased(Function function, const void* task) {
  State& state = *state_;
  if (state.helpers.empty()) {
    function(task, 0);
    return;
  }
  state.function = function;
  state.task = task;
  state.num_running.store(static_cast<int>(state.helpers.size()));
  state.num_posted.fetch_add(1);
  state.work_posted.NotifyAll();
  state.RunTask(0);
  state.work_done.Wait([&] { return state.num_running.load() == 0; });
  if (state.failure) std::rethrow_exception(std::exchange(state.failure, nullptr));
}

}  // namespace heddle
