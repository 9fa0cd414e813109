#include "device/thread_pool.h"

#include <atomic>
#include <thread>
#include <vector>

#include "base/backoff.h"
#include "base/error.h"

namespace heddle {

struct ThreadPool::State {
  explicit State(bool oversubscribed) : start(oversubscribed), done(oversubscribed) {}

  // Written by the caller of Run before `round` goes up, read by helpers after.
  Function function = nullptr;
  const void* task = nullptr;

  std::atomic<uint64_t> round{0};
  std::atomic<int> num_running{0};  // helpers that have not finished the round
  std::atomic<bool> stopping{false};
  Backoff start;
  Backoff done;
  std::vector<std::thread> helpers;
};

ThreadPool::ThreadPool(int num_threads, bool oversubscribed) : state_(std::make_unique<State>(oversubscribed)) {
  HEDDLE_CHECK(num_threads >= 1, std::to_string(num_threads) + " threads");
  State& state = *state_;
  for (int thread = 1; thread < num_threads; ++thread) {
    state.helpers.emplace_back([&state, thread] {
      for (uint64_t next = 1;; ++next) {
        state.start.Wait([&] { return state.stopping.load() || state.round.load() >= next; });
        if (state.stopping.load()) return;
        state.function(state.task, thread);
        if (state.num_running.fetch_sub(1) == 1) state.done.NotifyAll();
      }
    });
  }
}

ThreadPool::~ThreadPool() {
  state_->stopping.store(true);
  state_->start.NotifyAll();
  for (std::thread& helper : state_->helpers) helper.join();
}

int ThreadPool::num_threads() const { return static_cast<int>(state_->helpers.size()) + 1; }

void ThreadPool::RunErased(Function function, const void* task) {
  State& state = *state_;
  if (state.helpers.empty()) return function(task, 0);
  state.function = function;
  state.task = task;
  state.num_running.store(static_cast<int>(state.helpers.size()));
  state.round.fetch_add(1);
  state.start.NotifyAll();
  function(task, 0);
  state.done.Wait([&] { return state.num_running.load() == 0; });
}

}  // namespace heddle
