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

namespace {

// The state of a piece of work in one word, so that a late helper cannot enter one that is over.
struct Gate {
  static constexpr uint64_t kClosed = uint64_t{1} << 31;

  uint32_t work = 0;  // pieces of work ever posted, modulo 2^32
  bool closed = false;
  uint32_t entered = 0;  // helpers

  static Gate Of(uint64_t word) {
    return {static_cast<uint32_t>(word >> 32), (word & kClosed) != 0, static_cast<uint32_t>(word & (kClosed - 1))};
  }
  static uint64_t Open(uint32_t work) { return uint64_t{work} << 32; }
};

}  // namespace

struct ThreadPool::State {
  explicit State(bool oversubscribed) : work_posted(oversubscribed), work_done(oversubscribed) {}

  void Help(int thread);
  // Whether this helper is in piece `work`, which is then not over before the helper has finished.
  bool Enter(uint32_t work);
  void RunTask(int thread);
  // Opens the gate to what `function` and `task` say.
  void Post();
  void Stop();

  std::vector<std::thread> helpers;
  std::vector<Part> parts;  // one a thread

  // Written while no helper is in a piece of work; published by `gate`.
  Function function = nullptr;
  const void* task = nullptr;
  bool stopping = false;

  Backoff work_posted;
  alignas(64) std::atomic<uint64_t> gate{0};
  Backoff work_done;
  alignas(64) std::atomic<uint32_t> num_finished{0};  // of the helpers that entered

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
  for (uint32_t seen = 0;;) {
    work_posted.Wait([&] { return Gate::Of(gate.load()).work != seen; });
    // What was posted and closed meanwhile is over.
    seen = Gate::Of(gate.load()).work;
    if (!Enter(seen)) continue;
    if (stopping) return;
    RunTask(thread);
    if (num_finished.fetch_add(1) + 1 == Gate::Of(gate.load()).entered) work_done.NotifyAll();
  }
}

bool ThreadPool::State::Enter(uint32_t work) {
  uint64_t word = gate.load();
  do {
    if (Gate::Of(word).work != work || Gate::Of(word).closed) return false;
  } while (!gate.compare_exchange_weak(word, word + 1));
  return true;
}

void ThreadPool::State::Post() {
  num_finished.store(0);
  gate.store(Gate::Open(Gate::Of(gate.load()).work + 1));
  work_posted.NotifyAll();
}

void ThreadPool::State::Stop() {
  stopping = true;
  Post();
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

void ThreadPool::RunErased(Function function, const void* task, Helpers helpers) {
  State& state = *state_;
  if (state.helpers.empty()) {
    function(task, 0);
    return;
  }
  state.function = function;
  state.task = task;
  state.Post();
  state.RunTask(0);
  const uint32_t awaited = helpers == Helpers::kAll ? static_cast<uint32_t>(state.helpers.size())
                                                    : Gate::Of(state.gate.fetch_or(Gate::kClosed)).entered;
  state.work_done.Wait([&] { return state.num_finished.load() == awaited; });
  if (state.failure) std::rethrow_exception(std::exchange(state.failure, nullptr));
}

}  // namespace heddle
